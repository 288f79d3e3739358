/**
 * A run's value (tag, refs and group) in the tables of a SegmentSet: one byte if it is small, else a byte and an owner.
 *
 *   byte < OWNED    the tag is the low 6 bits, refs the upper 2, group 0: tags below 64 with refs of 0 to 3
 *   byte >= OWNED   the low 4 bits are the tag's; tag, refs and group stand in the three words of `owners`
 *
 * So the class, the tag's low 4 bits, is read from the byte alone, and the byte says all of what most runs are.
 */
import type { SegmentTables } from "./layout.ts";

/** The low bits of a tag are the run's class; classes below `classes` can be searched. */
export const CLASS_MASK = 15;
/** A tag is 16 bits. */
export const MAX_TAG = 0xffff;

export const SMALL_TAG_MASK = 63;
export const REFS_SHIFT = 6;
export const OWNED = 0xf0;
/** Words of `owners` a key: tag, refs, group. */
export const OWNER_WORDS = 3;

/** The byte of a value. Tags of 48 to 63 with 3 refs, which would fit, come out as owned ones. */
export const byteOf = (tag: number, refs: number, group: number): number => {
  return ((tag >>> REFS_SHIFT) | (refs >>> 2) | group) === 0 ? tag | (refs << REFS_SHIFT) : (tag & CLASS_MASK) | OWNED;
};

/** True if the runs that start at keys `a` and `b` have equal values. */
export const hasSameValue = (tables: SegmentTables, a: number, b: number): boolean => {
  const { values } = tables;
  if (values[a] !== values[b]) return false;
  if (values[a]! < OWNED) return true;
  const owners = tables.owners();
  const from = a * OWNER_WORDS;
  const to = b * OWNER_WORDS;
  return owners[from] === owners[to] && owners[from + 1] === owners[to + 1] && owners[from + 2] === owners[to + 2];
};
