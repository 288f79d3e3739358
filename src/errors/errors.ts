/** The library's own errors: each has a stable `code`. The operating system's are `SyscallError` (ffi/errors.ts). */

export { SyscallError } from "../../ffi/index.ts";

/** A method was called on a MemoryFile after `destroy()`. */
export class DestroyedError extends Error {
  override readonly name = "DestroyedError";
  readonly code = "ERR_DESTROYED";

  constructor(what: string, method: string) {
    super(`Cannot call ${method} on ${what} after destroy()`);
  }
}

/** The file may not grow that far: its `limitBytes`, or the address space it reserved. Nothing has changed. */
export class OutOfMemoryError extends Error {
  override readonly name = "OutOfMemoryError";
  readonly code = "ENOMEM";
  readonly requestedBytes: number;
  readonly limitBytes: number;

  constructor(requestedBytes: number, limitBytes: number, usedBytes: number) {
    super(
      `Cannot allocate ${requestedBytes} bytes: ${usedBytes} of at most ${limitBytes} bytes are in use; ` +
        "release some, or create the file with a larger limitBytes",
    );
    this.requestedBytes = requestedBytes;
    this.limitBytes = limitBytes;
  }
}

/** A range was touched before the background restore had brought it in. `await mf.awaitLoad(range)` first. */
export class NotLoadedError extends Error {
  override readonly name = "NotLoadedError";
  readonly code = "ERR_NOT_LOADED";
  /** Bytes, half-open: the range that was asked for. */
  readonly start: number;
  readonly end: number;

  constructor(start: number, end: number, options?: { cause?: unknown }) {
    super(`Range [${start}, ${end}) is not loaded yet; await mf.awaitLoad(range) first`, options);
    this.start = start;
    this.end = end;
  }
}

/** Where in a checkpoint something is wrong. */
export interface CorruptionDetails {
  readonly path?: string;
  readonly section?: string;
  /** Byte offset in the file at `path`. */
  readonly offset?: number;
  readonly cause?: unknown;
}

/** A checkpoint's bytes are not what a checkpoint's bytes can be: damaged, truncated, hostile, or of another kind. */
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

/** What was asked for cannot be had on this machine, or in this format, whatever the arguments. */
export class UnsupportedError extends Error {
  override readonly name = "UnsupportedError";
  readonly code = "ERR_UNSUPPORTED";
}

/** A library that a compression needs is not installed on this machine. */
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

/** A checkpoint of several files cannot be loaded as one: `loadAll` gives them by id. */
export class SeveralFilesError extends Error {
  override readonly name = "SeveralFilesError";
  readonly code = "ERR_SEVERAL_FILES";
  readonly path: string;
  /** The files' ids, in the order in which they were saved. */
  readonly ids: readonly string[];

  constructor(path: string, ids: readonly string[]) {
    const listed = ids.slice(0, MAX_LISTED_IDS).map((id) => JSON.stringify(id));
    const more = ids.length > listed.length ? `, and ${ids.length - listed.length} more` : "";
    super(
      `The checkpoint in '${path}' holds ${ids.length} files: ${listed.join(", ")}${more}; load it with loadAll()`,
    );
    this.path = path;
    this.ids = ids;
  }
}

const MAX_LISTED_IDS = 16;

/** Another save into the same directory is under way, in this process or another. */
export class CheckpointBusyError extends Error {
  override readonly name = "CheckpointBusyError";
  readonly code = "ERR_CHECKPOINT_BUSY";
  readonly path: string;

  constructor(path: string) {
    super(`Another save into '${path}' is under way; wait for it, or save into another directory`);
    this.path = path;
  }
}

/** Nothing tells of memory pressure here: no pressure stall information, or no right to ask for it. */
export class PressureUnavailableError extends Error {
  override readonly name = "PressureUnavailableError";
  readonly code = "ERR_PRESSURE_UNAVAILABLE";
  /** What each file answered. */
  readonly errors: readonly Error[];

  constructor(errors: readonly Error[]) {
    super(`Memory pressure cannot be watched: ${errors.map(({ message }) => message).join("; ")}`, {
      cause: errors[0],
    });
    this.errors = errors;
  }
}

/** A user's `evict` threw. The range is no longer evictable; mark it again if it is still to go. */
export interface EvictionFailure {
  readonly user: object;
  readonly range: { readonly start: number; readonly end: number };
  readonly error: unknown;
}

/** Users threw when they were asked to evict; all other ranges were evicted. */
export class EvictionError extends Error {
  override readonly name = "EvictionError";
  readonly code = "ERR_EVICTION";
  /** The first of them, at most 100. */
  readonly failures: readonly EvictionFailure[];
  readonly failureCount: number;

  constructor(failures: readonly EvictionFailure[], failureCount: number) {
    const [{ range, error }] = failures as [EvictionFailure];
    const more = failureCount === 1 ? "" : `, and ${failureCount - 1} more`;
    super(
      `Eviction of [${range.start}, ${range.end}) failed: ${error instanceof Error ? error.message : String(error)}${more}`,
      {
        cause: error,
      },
    );
    this.failures = failures;
    this.failureCount = failureCount;
  }
}

/** Too many threads use one MemoryFile at once. Nothing has changed; end some that do not need it, and try again. */
export class TooManyThreadsError extends Error {
  override readonly name = "TooManyThreadsError";
  readonly code = "ERR_TOO_MANY_THREADS";
  readonly limit: number;

  constructor(limit: number) {
    super(`Cannot attach: ${limit} threads use the MemoryFile already, which is the most`);
    this.limit = limit;
  }
}
