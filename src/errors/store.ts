/** Errors of stores (data/), each with a stable `code`. */

import { showValue } from "../../ffi/index.ts";
import { describeHolder } from "./checkpoint.ts";

/**
 * The store's pages contain data that no store writes: they are damaged, or were changed on
 * purpose. Restore another checkpoint.
 */
export class CorruptStoreError extends Error {
  override readonly name = "CorruptStoreError";
  readonly code = "ERR_CORRUPT_STORE";
}

/**
 * Another process, or another Store of this process, has the directory open for writing, or saves
 * into it.
 */
export class StoreBusyError extends Error {
  override readonly name = "StoreBusyError";
  readonly code = "ERR_STORE_BUSY";
  readonly path: string;
  /** The writer's process id, if the system tells it. */
  readonly pid: number | undefined;

  constructor(path: string, pid?: number) {
    const holder = describeHolder(pid);
    super(`${holder} has the store in '${path}' open; close it, or open with readOnly: true`);
    this.path = path;
    this.pid = pid;
  }
}

/** The store has a structure of this name with another type. */
export class WrongTypeError extends Error {
  override readonly name = "WrongTypeError";
  readonly code = "ERR_WRONG_TYPE";

  constructor(structure: string, expected: string, actual: string) {
    super(`Expected ${JSON.stringify(structure)} to be ${expected}, but it is ${actual}`);
  }
}

/** The heap did not return this handle, or its block was freed. */
export class StaleHandleError extends Error {
  override readonly name = "StaleHandleError";
  readonly code = "ERR_STALE_HANDLE";
  readonly handle: number;

  constructor(handle: number) {
    super(
      `Handle ${showValue(handle)} is not of a block in this heap: it was freed, or never given`,
    );
    this.handle = handle;
  }
}

/** A method that writes was called on a store that was opened with `readOnly: true`. */
export class ReadOnlyStoreError extends Error {
  override readonly name = "ReadOnlyStoreError";
  readonly code = "ERR_READ_ONLY_STORE";

  constructor(method: string) {
    super(`Cannot call ${method} on a store that was opened read-only`);
  }
}

/** A method was called on a structure that was dropped. */
export class DroppedError extends Error {
  override readonly name = "DroppedError";
  readonly code = "ERR_DROPPED";

  constructor(structure: string, method: string) {
    super(`Cannot call ${method} on ${JSON.stringify(structure)} after it was dropped`);
  }
}
