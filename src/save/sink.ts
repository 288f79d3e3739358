/**
 * Sink: the place to which a save writes a checkpoint. The saving thread begins, commits and closes
 * it. Writing threads get its description, which postMessage can copy, and open it as writers. No
 * code outside a sink knows its kind. One suite runs over all sinks (test/save/sinks.test.ts).
 *
 *   opened ── beginPages ──> writers write ── commit ──> committed
 *      └───────────────┴────────────┴── close ──> nothing has changed
 */
import type { OpenCheckpoint } from "../checkpoint/directory.ts";
import type { EncodedManifest } from "../checkpoint/encode.ts";
import type { PageFile } from "../checkpoint/format.ts";
import type { DirectoryOptions } from "../checkpoint/staging.ts";
import type { FileCore } from "../core/core.ts";
import type { PlaceOptions } from "../remote/place.ts";
import type { UploadDescription } from "../remote/upload.ts";

export interface Sink {
  /** For messages and the report. */
  readonly place: string;
  /**
   * The present checkpoint; null if there is none that a save can build on. Its descriptors stay
   * open until the sink is closed.
   */
  readonly base: OpenCheckpoint | null;
  /** Starts a page file. `mostBytes`: the most that may be written to it, if known. */
  beginPages(id: bigint, mostBytes: number): Promise<SinkDescription>;
  /** Replaces the checkpoint. Precondition: all writers are closed. */
  commit(commit: Commit): Promise<void>;
  /** The base is the result of the save. Precondition: there is one, and all writers are closed. */
  keepBase(): Promise<void>;
  /** Ends the save. Files that were not committed are removed. */
  close(): Promise<void>;
}

export interface SinkOptions extends PlaceOptions, DirectoryOptions {
  /** True if the save can build on the checkpoint that is there. */
  readonly wantsBase: boolean;
  /** The files that are saved. Default: none, so that any checkpoint may be replaced. */
  readonly cores?: readonly FileCore[];
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
  /** All page files that the manifest names. The new page file may not be among them. */
  readonly pageFiles: readonly PageFile[];
}

/** The place where threads write page contents. Each thread opens it (open-writer.ts). */
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
  /** False if the thread needs its event loop while it waits for others. */
  readonly mayBlock: boolean;
  /**
   * Called in order of offsets, by one thread at a time, before `write`: contents up to `endBytes`
   * will be written.
   */
  reserve(endBytes: number): void;
  /**
   * Writes native memory to the page file. The memory may change when this has returned, or
   * resolved.
   */
  write(address: number, lengthBytes: number, offset: number): void | Promise<void>;
  close(): void | Promise<void>;
}
