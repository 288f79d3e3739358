/** Errors of stores (data/): each has a stable `code`. */

/**
 * The store's pages hold something that no store writes: they were damaged, or changed on purpose.
 */
export class CorruptStoreError extends Error {
  override readonly name = "CorruptStoreError";
  readonly code = "ERR_CORRUPT_STORE";
}

/** Another process, or another Store of this one, has the directory open for writing. */
export class StoreBusyError extends Error {
  override readonly name = "StoreBusyError";
  readonly code = "ERR_STORE_BUSY";
  readonly path: string;

  constructor(path: string) {
    super(`Another writer has the store in '${path}' open; close it, or open with readOnly: true`);
    this.path = path;
  }
}

/** A structure of this name exists, and is of another type. */
export class WrongTypeError extends Error {
  override readonly name = "WrongTypeError";
  readonly code = "ERR_WRONG_TYPE";

  constructor(structure: string, expected: string, actual: string) {
    super(`Expected ${JSON.stringify(structure)} to be ${expected}, but it is ${actual}`);
  }
}

/** A handle that the heap did not give, or whose block was freed. */
export class StaleHandleError extends Error {
  override readonly name = "StaleHandleError";
  readonly code = "ERR_STALE_HANDLE";
  readonly handle: number;

  constructor(handle: number) {
    super(`Handle ${handle} is not of a block in this heap: it was freed, or never given`);
    this.handle = handle;
  }
}

/** A write to a store that was opened with `readOnly: true`. */
export class ReadOnlyStoreError extends Error {
  override readonly name = "ReadOnlyStoreError";
  readonly code = "ERR_READ_ONLY_STORE";

  constructor(method: string) {
    super(`Cannot call ${method} on a store that was opened read-only`);
  }
}

/** A structure that was dropped. */
export class DroppedError extends Error {
  override readonly name = "DroppedError";
  readonly code = "ERR_DROPPED";

  constructor(structure: string, method: string) {
    super(`Cannot call ${method} on ${JSON.stringify(structure)} after it was dropped`);
  }
}
