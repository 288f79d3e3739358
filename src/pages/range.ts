/** FileRange: half-open byte ranges of a MemoryFile, and the checks that public methods make. */
import { showValue } from "../../ffi/index.ts";
import { PAGE_SIZE } from "./units.ts";

/** A half-open range `[start, end)` of byte offsets in a MemoryFile. */
export class FileRange {
  /** First byte. */
  readonly start: number;
  /** One past the last byte. */
  readonly end: number;

  constructor(start: number, end: number) {
    this.start = start;
    this.end = end;
  }

  /** Bytes. */
  get length(): number {
    return this.end - this.start;
  }

  /** True if both ranges have the same bounds. */
  equals(other: RangeLike): boolean {
    return this.start === other.start && this.end === other.end;
  }

  toString(): string {
    return `[${this.start}, ${this.end})`;
  }
}

/** Anything with byte offsets `start` and `end`. */
export type RangeLike = { readonly start: number; readonly end: number };

/** @throws {TypeError} unless `range` is an object and both offsets read from it are numbers */
export const checkOffsets = (range: RangeLike, start: number, end: number): void => {
  if (typeof range !== "object" || typeof start !== "number" || typeof end !== "number")
    throwNoRange(range);
};

/** @throws {TypeError} naming a value that is not a range */
export function throwNoRange(range: unknown): never {
  throw new TypeError(
    `Expected range to be a FileRange or { start, end } in bytes, got ${showValue(range)}`,
  );
}

/**
 * Throws unless [start, end) is a non-empty, page-aligned range within the first `sizePages` pages.
 * `startPage` and `endPage` are pageOf(start) and pageOf(end).
 *
 * @throws {RangeError} naming the range and what is wrong with it
 */
export const checkBounds = (
  start: number,
  end: number,
  startPage: number,
  endPage: number,
  sizePages: number,
): void => {
  // Compared in bytes and in pages: NaN, fractions and offsets beyond 31 bits of pages do not equal
  // the offsets of their pages.
  const areOffsets = startPage * PAGE_SIZE === start && endPage * PAGE_SIZE === end;
  if (!areOffsets || startPage < 0 || startPage >= endPage || endPage > sizePages)
    throwBadRange(start, end, sizePages);
};

function throwBadRange(start: number, end: number, sizePages: number): never {
  const got = `got [${start}, ${end})`;
  // `%` gives NaN for NaN and infinities, and never 0 for fractions.
  if (start % PAGE_SIZE !== 0 || end % PAGE_SIZE !== 0) {
    throw new RangeError(
      `Expected range to start and end at page boundaries (multiples of ${PAGE_SIZE}), ${got}; ` +
        "for a part of a page take a subarray of the page's view",
    );
  }
  if (!(start >= 0 && start < end))
    throw new RangeError(`Expected range to be ordered and not empty, ${got}`);
  throw new RangeError(
    `Expected range to end within the file's ${sizePages * PAGE_SIZE} bytes, ${got}`,
  );
}
