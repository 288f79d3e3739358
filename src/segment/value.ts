/**
 * A run's value (tag, refs and group) in the tables of a SegmentSet: one byte if it is small, else
 * a byte and an owner.
 *
 *   byte < OWNED    the low 6 bits are the tag, the upper 2 are refs, group is 0: for tags below 64
 *                   with refs of 0 to 3
 *   byte >= OWNED   the low 4 bits are the tag's low bits; `owners` has tag, refs and group, a word
 *                   each
 *
 * So the byte alone gives the class, which is the tag's low 4 bits, and for most runs the whole
 * value.
 */
import { OWNER_WORDS, type SegmentTables } from "./layout.ts";

/** A run of keys of one value. */
export interface Segment {
  /** First key. */
  readonly start: number;
  /** One past the last key. */
  readonly end: number;
  /** The class in the low 4 bits; the upper 12 bits are the user's. */
  readonly tag: number;
  readonly refs: number;
  readonly group: number;
}

/** Runs as columns, one row for each. */
export interface RunColumns {
  readonly start: ArrayLike<number>;
  readonly length: ArrayLike<number>;
  readonly tag: ArrayLike<number>;
  readonly refs: ArrayLike<number>;
  readonly group: ArrayLike<number>;
}

/** A callback for each run: [start, end) and its value. */
export type VisitRun = (
  start: number,
  end: number,
  tag: number,
  refs: number,
  group: number,
) => void;

/** The low bits of a tag are the run's class; classes below `classes` can be searched. */
export const CLASS_MASK = 15;
/** A tag is 16 bits. */
export const MAX_TAG = 0xffff;

export const SMALL_TAG_MASK = 63;
export const REFS_SHIFT = 6;
export const OWNED = 0xf0;

/** The byte of a value. Tags of 48 to 63 with 3 refs would fit, but their bytes mark owned runs. */
export const byteOf = (tag: number, refs: number, group: number): number => {
  return ((tag >>> REFS_SHIFT) | (refs >>> 2) | group) === 0
    ? tag | (refs << REFS_SHIFT)
    : (tag & CLASS_MASK) | OWNED;
};

/** Stores the value of an owned run. */
export function setOwner(
  tables: SegmentTables,
  start: number,
  tag: number,
  refs: number,
  group: number,
): void {
  const owners = tables.owners();
  const at = start * OWNER_WORDS;
  owners[at] = tag;
  owners[at + 1] = refs;
  owners[at + 2] = group;
}

/** True if the runs that start at keys `a` and `b` have equal values. */
export const hasSameValue = (tables: SegmentTables, a: number, b: number): boolean => {
  const { values } = tables;
  if (values[a] !== values[b]) return false;
  if (values[a]! < OWNED) return true;
  const owners = tables.owners();
  const from = a * OWNER_WORDS;
  const to = b * OWNER_WORDS;
  return (
    owners[from] === owners[to] &&
    owners[from + 1] === owners[to + 1] &&
    owners[from + 2] === owners[to + 2]
  );
};

/** @throws {RangeError} naming the tag */
export function checkTag(tag: number): void {
  if (!(Number.isInteger(tag) && tag >= 0 && tag <= MAX_TAG)) {
    throw new RangeError(`Expected tag to be an integer in [0, ${MAX_TAG}], got ${tag}`);
  }
}
