/**
 * FirstPages: pages that the background pass reads before the rest, in a given order: the recorded
 * working set of an earlier start. The threads of a load share it.
 *
 * Entries are a unit and the bits of its pages. They are only hints: a page that is listed twice,
 * or has no contents, is skipped like one that another thread has claimed.
 */
import { LoadWord, PAGES_PER_UNIT, WORDS_PER_UNIT } from "./load-tables.ts";

/**
 * Units of first pages in flight over io_uring. At 64 KiB each, they have the bytes of one unit.
 */
export const FIRST_IN_FLIGHT = 32;

/** The unit, then the bits of its pages. */
const ENTRY_WORDS = 1 + WORDS_PER_UNIT;

/** Lists the pages of blocks of `blockPages` pages, unit by unit in the order of first use. */
export function listFirstPages(
  blocks: readonly number[],
  blockPages: number,
): Int32Array<SharedArrayBuffer> {
  const units = new Map<number, Int32Array>();
  for (const block of blocks) {
    const page = block * blockPages;
    const unit = Math.floor(page / PAGES_PER_UNIT);
    const bits = units.get(unit) ?? new Int32Array(WORDS_PER_UNIT);
    units.set(unit, bits);
    for (let i = 0; i < blockPages; i++) {
      const bit = (page + i) % PAGES_PER_UNIT;
      bits[bit >>> 5]! |= 1 << (bit & 31);
    }
  }
  const entries = new Int32Array(new SharedArrayBuffer(4 * ENTRY_WORDS * units.size));
  let at = 0;
  for (const [unit, bits] of units) {
    entries[at] = unit;
    entries.set(bits, at + 1);
    at += ENTRY_WORDS;
  }
  return entries;
}

/** True while first pages are left. `words` are LoadWord's. */
export function hasFirst(words: Int32Array, entries: Int32Array | null): boolean {
  return entries !== null && words[LoadWord.NextFirst]! < entries.length / ENTRY_WORDS;
}

/** Takes the next unit. Its pages' bits go to `want`; -1 at the end. `words` are LoadWord's. */
export function takeFirst(
  words: Int32Array,
  entries: Int32Array | null,
  unitCount: number,
  want: Int32Array,
): number {
  if (entries === null) return -1;
  const count = entries.length / ENTRY_WORDS;
  // A plain read first, because every unit of the pass asks.
  while (words[LoadWord.NextFirst]! < count) {
    const entry = Atomics.add(words, LoadWord.NextFirst, 1);
    if (entry >= count) return -1;
    const unit = entries[entry * ENTRY_WORDS]!;
    if (unit >= unitCount) continue;
    want.set(entries.subarray(entry * ENTRY_WORDS + 1, (entry + 1) * ENTRY_WORDS));
    return unit;
  }
  return -1;
}
