/**
 * The layout of a SegmentSet's tables: the levels of its bit tree and of its summaries, root first
 * and keys last. A prefix of each table therefore serves all keys below some size. runs.ts
 * describes what the tables contain.
 */

export const FANOUT_SHIFT = 3;
export const FANOUT = 1 << FANOUT_SHIFT;

/** Words of `owners` for each key: tag, refs, group. */
export const OWNER_WORDS = 3;

/** Largest capacity: keys and lengths are 31-bit. */
export const MAX_CAPACITY = 2 ** 30;

/** Bases of the tables' levels for a capacity, in 4-byte words. */
export interface SegmentLayout {
  readonly capacity: number;
  /** Level 0 has the keys. Its base is the largest, because the root comes first. */
  readonly bitBases: readonly number[];
  /** Level 0 is the leaves. */
  readonly summaryBases: readonly number[];
}

/**
 * The memory of a SegmentSet: zeroed, or written by another SegmentSet of the same layout. A table
 * that only some sets need is made on first use.
 */
export interface SegmentTables {
  readonly values: Uint8Array;
  readonly bits: Int32Array;
  /** Classes 0 to classes - 1 can be searched. */
  readonly classes: number;
  owners(): Int32Array;
  /** 0 <= cls < classes. */
  summary(cls: number): Int32Array;
}

/** @throws {RangeError} unless 1 <= capacity <= MAX_CAPACITY */
export function segmentLayout(capacity: number): SegmentLayout {
  if (!Number.isInteger(capacity) || capacity < 1 || capacity > MAX_CAPACITY) {
    throw new RangeError(
      `Expected capacity to be an integer in [1, ${MAX_CAPACITY}], got ${JSON.stringify(capacity)}`,
    );
  }
  return {
    capacity,
    bitBases: rootFirstBases(capacity, 5),
    summaryBases: rootFirstBases(Math.ceil(capacity / 32) * FANOUT, FANOUT_SHIFT),
  };
}

/**
 * Bases of a tree's levels, root first. Each level has 2^shift times fewer elements than the one
 * below; index 0 is the lowest level.
 */
function rootFirstBases(lowestCount: number, shift: number): number[] {
  const words: number[] = [];
  for (let count = lowestCount; ; ) {
    count = Math.ceil(count / 2 ** shift);
    // Siblings come in whole groups, so a scan of a node's children never leaves the table.
    words.push(count === 1 ? 1 : Math.ceil(count / FANOUT) * FANOUT);
    if (count === 1) break;
  }
  const bases: number[] = new Array(words.length);
  let base = 0;
  for (let level = words.length - 1; level >= 0; level--) {
    bases[level] = base;
    base += words[level]!;
  }
  return bases;
}

/**
 * Elements of each table that serve keys [0, keys). `values` has bytes, all others have words of 4
 * bytes.
 */
export function segmentLengths(
  layout: SegmentLayout,
  keys: number,
): { values: number; owners: number; bits: number; summary: number } {
  const leaves = Math.ceil(Math.ceil(keys / 32) / FANOUT) * FANOUT;
  return {
    values: keys,
    owners: keys * OWNER_WORDS,
    bits: layout.bitBases[0]! + leaves,
    summary: layout.summaryBases[0]! + leaves,
  };
}
