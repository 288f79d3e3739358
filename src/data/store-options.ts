/** Options and handles of stores. */
import type { LoadOptions, MemoryFileHandle } from "../core/options.ts";

export interface StoreOptions extends LoadOptions {
  /** Make an empty store if there is no checkpoint. Default: false. */
  readonly create?: boolean | undefined;
  /** Open for reading, beside a writer or other readers. Default: false. */
  readonly readOnly?: boolean | undefined;
  /** Checkpoint every so many milliseconds. Default: only when asked, and on close. */
  readonly checkpointEveryMs?: number | undefined;
  /**
   * Called when a checkpoint of `checkpointEveryMs` fails; the next one tries again. Default: emits
   * a warning.
   */
  readonly onCheckpointError?: ((error: unknown) => void) | undefined;
  /** The time in ms, for expiry. Default: Date.now. */
  readonly now?: (() => number) | undefined;
}

/** What `share()` returns: a value that can be posted to a Worker. */
export interface StoreHandle {
  readonly kind: "pgalloc.Store";
  readonly memory: MemoryFileHandle;
  readonly control: SharedArrayBuffer;
  readonly rootStart: number;
}

export interface StoreAttachOptions {
  /** Only read: other threads' checkpoints then do not wait for this thread. Default: false. */
  readonly readOnly?: boolean | undefined;
  readonly now?: (() => number) | undefined;
}

export interface CheckpointOptions {
  /**
   * False: writes all contents anew, in the order of memory, so that readers which map the
   * checkpoint find few pieces. Default: true, only what changed.
   */
  readonly incremental?: boolean | undefined;
}
