/**
 * Assertions. A broken invariant throws at once, because wrong tables would hand out memory twice.
 * `assert` is always on, and only for cold paths. Expensive checks of whole structures run if
 * `checksStructures` is set; the tests set it with PGALLOC_ASSERT=1.
 */

/**
 * The library found its own state to be wrong: a bug in the library, or other code wrote to its
 * memory. Destroy the file, restore it from its checkpoint, and report the message and stack.
 */
export class InvariantError extends Error {
  override readonly name = "InvariantError";
  readonly code = "ERR_INVARIANT";

  constructor(message: string, options?: { cause?: unknown }) {
    super(`Broken invariant: ${message}`, options);
  }
}

/** @throws {InvariantError} unless `condition`; `message` says what is wrong, with the values */
export function assert(condition: boolean, message: () => string): asserts condition {
  if (!condition) throw new InvariantError(message());
}

/** True if expensive checks of whole structures run. */
export const checksStructures = process.env["PGALLOC_ASSERT"] === "1";
