/** FileRange: half-open byte ranges of a MemoryFile, and the checks that every public method makes of one. */
import type { FileCore } from "./file-core.ts";
import type { Views } from "./mapping/views.ts";
import { PAGE_SIZE } from "./units.ts";

/**
 * The view that a range remembers, if `core`'s views handed it out for this range, of that type, it is still the user's to use, and
 * nothing was discarded since its pages were looked at. Most programs ask for views of the ranges that `allocate` gave them: so that
 * is one look, where a table takes four.
 */
export let freshViewOf: (range: RangeLike, core: FileCore, type: unknown) => ArrayBufferView | undefined;
/** The view that a range remembers, if it is that of bytes [start, end) and of that type; its pages must be looked at. */
export let viewOf: (range: object, views: Views, type: unknown, start: number, end: number) => ArrayBufferView | undefined;
/** Of a range that remembers a view: its pages have been looked at. */
export let noteLook: (range: object, discards: number) => void;
/** Has the range remember a view that begins at byte `start`. False if it is no FileRange, or more than that. */
export let keepView: (
  range: object,
  views: Views,
  type: unknown,
  view: ArrayBufferView,
  start: number,
  discards: number,
) => boolean;
/** Takes that back, unless it is another file's by now. */
export let forgetView: (range: FileRange, views: Views) => void;
/** True if the view was asked for since this was asked last. */
export let takeUsed: (range: FileRange) => boolean;

/** A half-open range `[start, end)` of byte offsets in a MemoryFile. */
export class FileRange {
  /** First byte. */
  readonly start: number;
  /** One past the last byte. */
  readonly end: number;
  #view: ArrayBufferView | undefined = undefined;
  #type: unknown = undefined;
  #views: Views | undefined = undefined;
  /** Word.Discards, as it was when the pages were looked at. */
  #discards = 0;
  /** `start`, when the view was made: programs can write to what TypeScript calls readonly. */
  #viewStart = 0;
  #isUsed = false;

  static {
    freshViewOf = (range, core, type) => {
      if (typeof range !== "object" || range === null || !(#views in range)) return undefined;
      if (range.#views !== core.views || range.#type !== type) return undefined;
      const { start, end } = range;
      const view = range.#view;
      if (view === undefined || !isOf(view, range.#viewStart, start, end)) return undefined;
      // Last, for bounds may be the program's own code.
      if (range.#discards !== core.discards) return undefined;
      range.#isUsed = true;
      return view;
    };
    viewOf = (range, views, type, start, end) => {
      if (!(#views in range) || range.#views !== views || range.#type !== type) return undefined;
      return isOf(range.#view!, range.#viewStart, start, end) ? range.#view : undefined;
    };
    noteLook = (range, discards) => {
      if (!(#views in range)) return;
      range.#discards = discards;
      range.#isUsed = true;
    };
    keepView = (range, views, type, view, start, discards) => {
      // Who keeps the view keeps the range: not what a program has made of one.
      if (!(#views in range) || Object.getPrototypeOf(range) !== FileRange.prototype) return false;
      range.#view = view;
      range.#type = type;
      range.#views = views;
      range.#discards = discards;
      range.#viewStart = start;
      return true;
    };
    forgetView = (range, views) => {
      if (range.#views === views) range.#view = range.#type = range.#views = undefined;
    };
    takeUsed = (range) => {
      const isUsed = range.#isUsed;
      range.#isUsed = false;
      return isUsed;
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

/** True if the view from byte `viewStart` on is that of [start, end). Length 0: it was transferred away, or the file destroyed. */
const isOf = ({ byteLength }: ArrayBufferView, viewStart: number, start: number, end: number): boolean => {
  return start === viewStart && start + byteLength === end && byteLength !== 0;
};

/** Anything with byte offsets `start` and `end`. */
export type RangeLike = { readonly start: number; readonly end: number };

/** @throws {TypeError} unless `range` is an object, and what was read from it two numbers */
export const checkOffsets = (range: RangeLike, start: number, end: number): void => {
  if (typeof range !== "object" || typeof start !== "number" || typeof end !== "number") throwNoRange(range);
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
export const checkBounds = (start: number, end: number, startPage: number, endPage: number, sizePages: number): void => {
  // Compared as bytes and as pages: NaN, fractions and what is beyond 31 bits of pages differ from their pages' offsets.
  const areOffsets = startPage * PAGE_SIZE === start && endPage * PAGE_SIZE === end;
  if (!areOffsets || startPage < 0 || startPage >= endPage || endPage > sizePages) throwBadRange(start, end, sizePages);
};

function throwBadRange(start: number, end: number, sizePages: number): never {
  const got = `got [${start}, ${end})`;
  // `%` is NaN for NaN and infinities, and never 0 for fractions.
  if (start % PAGE_SIZE !== 0 || end % PAGE_SIZE !== 0) {
    throw new RangeError(`Expected range to start and end at multiples of ${PAGE_SIZE}, ${got}`);
  }
  if (!(start >= 0 && start < end)) throw new RangeError(`Expected range to be ordered and not empty, ${got}`);
  throw new RangeError(`Expected range to end within the file's ${sizePages * PAGE_SIZE} bytes, ${got}`);
}

function describe(value: unknown): string {
  if (value === null || typeof value !== "object") return String(value);
  const { start, end } = value as Record<string, unknown>;
  return `{ start: ${String(start)}, end: ${String(end)} }`;
}
