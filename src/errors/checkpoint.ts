/** Errors of checkpoints: absent, damaged, busy, or of a kind that cannot be used here. */
import { quote } from "../../ffi/index.ts";

/** Where in a checkpoint something is wrong. */
export interface CorruptionDetails {
  readonly path?: string;
  readonly section?: string;
  /** Byte offset in the file at `path`. */
  readonly offset?: number;
  readonly cause?: unknown;
}

/**
 * A checkpoint's bytes are damaged, truncated, hostile, or of another kind. `path`, `section` and
 * `offset` say where. Restore another checkpoint. `pgalloc verify` lists what is damaged.
 */
export class CorruptCheckpointError extends Error {
  override readonly name = "CorruptCheckpointError";
  readonly code = "ERR_CORRUPT_CHECKPOINT";
  readonly path?: string;
  readonly section?: string;
  readonly offset?: number;

  constructor(message: string, details: CorruptionDetails = {}) {
    const place = [
      details.section === undefined ? [] : `section ${details.section}`,
      details.offset === undefined ? [] : `offset ${details.offset}`,
      details.path === undefined ? [] : `in '${details.path}'`,
    ].flat();
    super(place.length === 0 ? message : `${message} (${place.join(", ")})`, {
      cause: details.cause,
    });
    if (details.path !== undefined) this.path = details.path;
    if (details.section !== undefined) this.section = details.section;
    if (details.offset !== undefined) this.offset = details.offset;
  }
}

/** What is missing, if it is not the manifest of a checkpoint. */
interface Missing {
  readonly kind?: string;
  readonly file?: string;
  readonly why?: string;
}

/**
 * There is no checkpoint at that place, as before the first save. This error never means damage.
 * Save a checkpoint there, or correct the path.
 */
export class NoCheckpointError extends Error {
  override readonly name = "NoCheckpointError";
  readonly code = "ERR_NO_CHECKPOINT";
  readonly path: string;

  /** @param cause if the directory does not exist */
  constructor(path: string, cause?: unknown, { kind, file, why }: Missing = {}) {
    const found =
      cause === undefined ? `it has no file ${file ?? "meta"}` : "it does not exist (ENOENT)";
    const advice =
      kind === undefined ? "; save one there, or begin with open() and { create: true }" : "";
    super(
      `There is no ${kind ?? "checkpoint"} in '${path}': ${why ?? found}${advice}`,
      cause === undefined ? undefined : { cause },
    );
    this.path = path;
  }
}

/**
 * A save would replace a file that no save made: `meta` in its directory has other contents.
 * Nothing has changed. Delete that file, or choose another directory.
 */
export class NotCheckpointError extends Error {
  override readonly name = "NotCheckpointError";
  readonly code = "ERR_NOT_CHECKPOINT";
  readonly path: string;

  constructor(path: string, what = `it is not empty, and no save made it`) {
    super(`Cannot replace '${path}': ${what}; delete it, or choose another directory`);
    this.path = path;
  }
}

/**
 * A page source failed to read a page. `code` and `cause` come from the source's error, if it has a
 * code. Call `retryLoad` once the source works again.
 */
export class PageReadError extends Error {
  override readonly name = "PageReadError";
  readonly code: string;
  readonly path: string;
  /** Byte offset in the content named by `path`. */
  readonly offset: number;

  constructor(cause: Error, { path, offset }: { path: string; offset: number }) {
    super(`Cannot read '${path}' at offset ${offset}: ${cause.message}`, { cause });
    const { code } = cause as { code?: unknown };
    this.code = typeof code === "string" ? code : "ERR_PAGE_READ";
    this.path = path;
    this.offset = offset;
  }
}

/** A library that a compression needs is not installed on this machine. Install it. */
export class CodecUnavailableError extends Error {
  override readonly name = "CodecUnavailableError";
  readonly code = "ERR_CODEC_UNAVAILABLE";
  /** The compression: "lz4". */
  readonly codec: string;

  constructor(codec: string, install: string, options?: { cause?: unknown }) {
    super(`Compression ${JSON.stringify(codec)} is not available here: ${install}`, options);
    this.codec = codec;
  }
}

/** A checkpoint of several files cannot be loaded as one. Load it with `loadAll`. */
export class SeveralFilesError extends Error {
  override readonly name = "SeveralFilesError";
  readonly code = "ERR_SEVERAL_FILES";
  readonly path: string;
  /** The files' ids, in the order in which they were saved. */
  readonly ids: readonly string[];

  constructor(path: string, ids: readonly string[]) {
    const listed = ids.slice(0, MAX_LISTED_IDS).map(quote);
    const more = ids.length > listed.length ? `, and ${ids.length - listed.length} more` : "";
    super(
      `The checkpoint in '${path}' holds ${ids.length} files: ${listed.join(", ")}${more}; ` +
        "load it with loadAll()",
    );
    this.path = path;
    this.ids = ids;
  }
}

const MAX_LISTED_IDS = 16;

/**
 * More memory changed during the rounds of a consistent save than its last pass may copy. The
 * destination is as it was. Allow more with `pauseMemoryBytes`, write less during saves, or save
 * with `consistent: false`.
 */
export class PauseMemoryError extends Error {
  override readonly name = "PauseMemoryError";
  readonly code = "ERR_PAUSE_MEMORY";
  readonly neededBytes: number;
  readonly limitBytes: number;

  constructor(neededBytes: number, limitBytes: number) {
    super(
      `Expected at most pauseMemoryBytes, ${limitBytes}, to copy at the instant of the save, ` +
        `got ${neededBytes}; allow more, write less during saves, or use consistent: false`,
    );
    this.neededBytes = neededBytes;
    this.limitBytes = limitBytes;
  }
}

/**
 * Another writer has the directory, in this process or another: a save, a copy or an export that is
 * under way, or a store that is open. Wait for it, or save into another directory.
 */
export class CheckpointBusyError extends Error {
  override readonly name = "CheckpointBusyError";
  readonly code = "ERR_CHECKPOINT_BUSY";
  readonly path: string;
  /** The writer's process id, if the system tells it. */
  readonly pid: number | undefined;

  constructor(path: string, pid?: number) {
    const holder = describeHolder(pid);
    super(
      `${holder} has '${path}': a save is under way, or a store is open; ` +
        "wait for it or close it, or save into another directory",
    );
    this.path = path;
    this.pid = pid;
  }
}

/** The process that has a directory, at the start of a sentence. */
export function describeHolder(pid: number | undefined): string {
  if (pid === undefined) return "Another writer";
  return pid === process.pid ? "Another writer of this process" : `Process ${pid}`;
}
