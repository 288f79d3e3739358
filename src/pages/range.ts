/** FileRange: half-open byte ranges of a MemoryFile, what one remembers of its view, and the checks that public methods make. */
import type { Views } from "../memory/views.ts";
import { PAGE_SIZE } from "./units.ts";

/**
 * The view that a range remembers, if it has that stamp: it is then of the file and type that the stamp stands for, nothing was
 * discarded since its pages were looked at, and it is still the user's to use. Most programs ask for views of the ranges that
 * `allocate` gave them: so that is one look, where a table takes four. stamp > 0.
 */
export let freshViewOf: (range: RangeLike, stamp: number) => ArrayBufferView | undefined;
/** The view that a range remembers, if it is of that file and type; its pages must be looked at. */
export let viewOf: (range: RangeLike, views: Views, type: unknown) => ArrayBufferView | undefined;
/** Of a range that remembers a view: its pages have been looked at, and it has this stamp now. */
export let renewView: (range: object, stamp: number) => void;
/** Has the range, which is bytes [start, end), remember a view. False if it is no FileRange, or more than that. */
export let keepView: (range: object, start: number, end: number, kept: Remembered) => boolean;
/** Takes that back. */
export let forgetView: (range: FileRange) => void;
/** True if the view was asked for since this was asked last. */
export let takeUsed: (range: FileRange) => boolean;

/** What a range remembers: the view, who handed it out, as what, and the stamp of that (mapping/views.ts). */
export interface Remembered {
  readonly view: ArrayBufferView;
  readonly views: Views;
  readonly type: unknown;
  readonly stamp: number;
}

/**
 * A half-open range `[start, end)` of byte offsets in a MemoryFile. While none of its views was handed out `start` and `end` can be
 * written, whatever TypeScript says; afterwards they are fixed as a rule.
 */
export class FileRange {
  /** First byte. */
  readonly start: number;
  /** One past the last byte. */
  readonly end: number;
  #view: ArrayBufferView | undefined = undefined;
  #views: Views | undefined = undefined;
  #type: unknown = undefined;
  /** Negative if the view was not asked for since `takeUsed`. */
  #stamp = 0;

  static {
    freshViewOf = (range, stamp) => {
      if (typeof range !== "object" || range === null || !(#view in range)) return undefined;
      if (range.#stamp !== stamp) {
        if (range.#stamp !== -stamp) return undefined;
        range.#stamp = stamp;
      }
      const view = range.#view!;
      return isUsable(view) ? view : undefined;
    };
    viewOf = (range, views, type) => {
      if (typeof range !== "object" || range === null || !(#view in range)) return undefined;
      if (range.#views !== views || range.#type !== type) return undefined;
      const view = range.#view!;
      return isUsable(view) && range.#view === view ? view : undefined;
    };
    renewView = (range, stamp) => {
      if (#view in range) range.#stamp = stamp;
    };
    keepView = (range, start, end, { view, views, type, stamp }) => {
      // Who keeps the view keeps the range: not what a program has made of one.
      if (!(#view in range) || Object.getPrototypeOf(range) !== FileRange.prototype) return false;
      if (dataOf(range, "start") !== start || dataOf(range, "end") !== end) return false;
      Object.defineProperties(range, { start: FIXED, end: FIXED });
      range.#view = view;
      range.#views = views;
      range.#type = type;
      range.#stamp = -stamp;
      return true;
    };
    forgetView = (range) => {
      range.#view = range.#views = range.#type = undefined;
      range.#stamp = 0;
    };
    takeUsed = (range) => {
      if (range.#stamp <= 0) return false;
      range.#stamp = -range.#stamp;
      return true;
    };
  }

  constructor(start: number, end: number) {
    this.start = start;
    this.end = end;
  }

  /** Bytes. */
  get length(): number {
    return this.end - this.start;
  }

  /** True if both ranges are the same bytes. */
  equals(other: { readonly start: number; readonly end: number }): boolean {
    return this.start === other.start && this.end === other.end;
  }

  toString(): string {
    return `[${this.start}, ${this.end})`;
  }
}

/** Length 0: the buffer was transferred away, or the file destroyed. */
const isUsable = (view: ArrayBufferView): boolean => {
  return view.byteLength !== 0;
};

/** A property keeps the value that it has. */
const FIXED = { writable: false, configurable: false };

/** The property's value; undefined if that is the program's own code. */
function dataOf(range: object, key: "start" | "end"): unknown {
  return Object.getOwnPropertyDescriptor(range, key)?.value;
}

/** Anything with byte offsets `start` and `end`. */
export type RangeLike = { readonly start: number; readonly end: number };

/** @throws {TypeError} unless `range` is an object, and what was read from it two numbers */
export const checkOffsets = (range: RangeLike, start: number, end: number): void => {
  if (typeof range !== "object" || typeof start !== "number" || typeof end !== "number")
    throwNoRange(range);
};

/** @throws {TypeError} naming what is no range */
export function throwNoRange(range: unknown): never {
  throw new TypeError(`Expected range to have numbers start and end, got ${describe(range)}`);
}

/**
 * Throws unless [start, end) is a non-empty, page-aligned range within the first `sizePages` pages. `startPage` and `endPage` are
 * pageOf(start) and pageOf(end).
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
  // Compared as bytes and as pages: NaN, fractions and what is beyond 31 bits of pages differ from their pages' offsets.
  const areOffsets = startPage * PAGE_SIZE === start && endPage * PAGE_SIZE === end;
  if (!areOffsets || startPage < 0 || startPage >= endPage || endPage > sizePages)
    throwBadRange(start, end, sizePages);
};

function throwBadRange(start: number, end: number, sizePages: number): never {
  const got = `got [${start}, ${end})`;
  // `%` is NaN for NaN and infinities, and never 0 for fractions.
  if (start % PAGE_SIZE !== 0 || end % PAGE_SIZE !== 0) {
    throw new RangeError(`Expected range to start and end at multiples of ${PAGE_SIZE}, ${got}`);
  }
  if (!(start >= 0 && start < end))
    throw new RangeError(`Expected range to be ordered and not empty, ${got}`);
  throw new RangeError(
    `Expected range to end within the file's ${sizePages * PAGE_SIZE} bytes, ${got}`,
  );
}

function describe(value: unknown): string {
  if (value === null || typeof value !== "object") return String(value);
  const { start, end } = value as Record<string, unknown>;
  return `{ start: ${String(start)}, end: ${String(end)} }`;
}
