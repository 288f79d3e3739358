/** Errors of a MemoryFile in use: its end, its limits, and memory that is not there yet. */

/**
 * A method was called on a MemoryFile or queue after `destroy()`, or `destroy()` ended a call under
 * way. Keep the object until the last call on it has ended.
 */
export class DestroyedError extends Error {
  override readonly name = "DestroyedError";
  readonly code = "ERR_DESTROYED";

  /**
   * @param isUnderWay true if the object was destroyed during the call
   * @param end the method that ended the object
   */
  constructor(what: string, method: string, isUnderWay = false, end = "destroy()") {
    super(
      isUnderWay
        ? `${what} was destroyed while ${method} was under way; await that before ${end}`
        : `Cannot call ${method} on ${what} after ${end}`,
    );
  }
}

/**
 * The file may not grow that far: its `limitBytes`, or the address space that it reserved. Nothing
 * has changed. Drop references, or create the file with a larger `limitBytes`.
 */
export class OutOfMemoryError extends Error {
  override readonly name = "OutOfMemoryError";
  readonly code = "ENOMEM";
  readonly requestedBytes: number;
  readonly limitBytes: number;

  constructor(requestedBytes: number, limitBytes: number, usedBytes: number) {
    super(
      `Cannot allocate ${requestedBytes} bytes: ${usedBytes} of at most ${limitBytes} bytes are ` +
        "in use; release some, or create the file with a larger limitBytes",
    );
    this.requestedBytes = requestedBytes;
    this.limitBytes = limitBytes;
  }
}

function stateOf(cause: unknown): string {
  if (cause === undefined) return "is not loaded yet; await file.awaitLoad(range) first";
  const reason = cause instanceof Error ? cause.message : String(cause);
  return `could not be loaded: ${reason}; file.retryLoad(range) tries again`;
}

/**
 * A range was viewed before the background restore had loaded it, or its pages could not be loaded:
 * `cause` says why. `await file.awaitLoad(range)` first.
 */
export class NotLoadedError extends Error {
  override readonly name = "NotLoadedError";
  readonly code = "ERR_NOT_LOADED";
  /** Byte offsets of the requested range, half-open. */
  readonly start: number;
  readonly end: number;

  constructor(start: number, end: number, options?: { cause?: unknown }) {
    super(`Range [${start}, ${end}) ${stateOf(options?.cause)}`, options);
    this.start = start;
    this.end = end;
  }
}

/**
 * Too many threads use one MemoryFile at once. Nothing has changed. Destroy the file in threads
 * that do not need it, or end them, and try again.
 */
export class TooManyThreadsError extends Error {
  override readonly name = "TooManyThreadsError";
  readonly code = "ERR_TOO_MANY_THREADS";
  readonly limit: number;

  constructor(limit: number) {
    super(
      `Cannot attach: ${limit} threads use the MemoryFile already, which is the most; ` +
        "end one of them first",
    );
    this.limit = limit;
  }
}

/**
 * `path` names the memory of another MemoryFile, in this process or another one. Nothing has
 * changed. Destroy that file first, or choose another path.
 */
export class PathInUseError extends Error {
  override readonly name = "PathInUseError";
  readonly code = "ERR_PATH_IN_USE";
  readonly path: string;

  constructor(path: string) {
    super(
      `Cannot use '${path}' as memory: another MemoryFile of this or another process uses it; ` +
        "destroy that one first, or choose another path",
    );
    this.path = path;
  }
}

/**
 * `path` names a file that is not empty and was not made by this library. Nothing has changed.
 * Delete it, or choose another path.
 */
export class NotMemoryError extends Error {
  override readonly name = "NotMemoryError";
  readonly code = "ERR_NOT_MEMORY";
  readonly path: string;

  constructor(path: string) {
    super(
      `Cannot use '${path}' as memory: it is not an empty file, and no MemoryFile made it; ` +
        "delete it, or choose another path",
    );
    this.path = path;
  }
}
