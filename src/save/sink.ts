/**
 * Sink: the place that a save writes a checkpoint to. The saving thread begins, commits and closes
 * it. Writing threads get its cloneable description and open it as writers. Nothing outside a sink
 * knows which one it is.
 *
 *   opened ── beginPages ──> writers write ── commit ──> committed
 *      └───────────────┴────────────┴── close ──> nothing has changed
 */
import type { OpenCheckpoint } from "../checkpoint/directory.ts";
import type { EncodedManifest } from "../checkpoint/encode.ts";
import type { PageFile } from "../checkpoint/format.ts";
import type { UploadDescription } from "../remote/upload.ts";

export interface Sink {
  /** For messages and the report. */
  readonly place: string;
  /**
   * The checkpoint that is there now; null if there is none that a save can build on. Its
   * descriptors stay open until the sink is closed.
   */
  readonly base: OpenCheckpoint | null;
  /** Starts a page file. `mostBytes`: what may be written to it at most, as far as is known. */
  beginPages(id: bigint, mostBytes: number): Promise<SinkDescription>;
  /** Replaces the checkpoint. Precondition: all writers are closed. */
  commit(commit: Commit): Promise<void>;
  /** Ends the save. What is not committed is removed. */
  close(): Promise<void>;
}

export interface Commit {
  readonly id: bigint;
  /** The page file that was begun; null if nothing was written to it. */
  readonly written: PageFile | null;
  /** Called once. The page file may be synced meanwhile. */
  readonly makeManifest: () => Promise<MadeManifest>;
}

export interface MadeManifest {
  readonly manifest: EncodedManifest;
  /** All page files that the manifest names; the one that was written may not be among them. */
  readonly pageFiles: readonly PageFile[];
}

/** Where threads write page contents. Cloneable: each thread opens it (open-writer.ts). */
export type SinkDescription = FileDescription | UploadDescription;

/** An open file. */
export interface FileDescription {
  readonly kind: "file";
  readonly fd: number;
  /** For messages. */
  readonly path: string;
  /** Float64 fields of FileField (file-writer.ts); null if nothing is allocated ahead. */
  readonly allocation: SharedArrayBuffer | null;
}

/** A thread's way to write contents to a page file. */
export interface SinkWriter {
  /** False if the thread's event loop must go round while it waits for others. */
  readonly mayBlock: boolean;
  /**
   * Called in order of offsets, by one thread at a time, before `write`: contents up to `endBytes`
   * are about to be written.
   */
  reserve(endBytes: number): void;
  /**
   * Writes native memory to the page file. The memory may change when this has returned, or
   * resolved.
   */
  write(address: number, lengthBytes: number, offset: number): void | Promise<void>;
  close(): void | Promise<void>;
}
