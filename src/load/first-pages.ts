/**
 * FirstPages: pages that the background pass reads before the rest, in a given order: the recorded
 * working set of an earlier start. The threads of a load share it.
 *
 * Entries are a unit and the bits of its pages, behind a head. They are only hints: a page that is
 * listed twice, or has no contents, is skipped like one that another thread has claimed.
 *
 * From files they are read through the page cache, and the kernel is told before which ones follow.
 * The thread that opens the load tells it the first ones: 300 of 16 KiB take it 1.2 ms, and then
 * the device reads them at once, before any thread of the load runs. Awaited one after another,
 * they took 18 ms, and 3 to 6 ms when the kernel had been told (cache cold, 60 us a read).
 */
import { adviseContent, canAdvise } from "../source/describe.ts";
import { CodecId } from "../codec/codec.ts";
import { PAGE_SIZE } from "../pages/units.ts";
import type { LoadState } from "./load-state.ts";
import {
  FIRST_DEPTH_MAX,
  type LoadHandle,
  LoadWord,
  PAGES_PER_UNIT,
  WORDS_PER_UNIT,
} from "./load-tables.ts";
import { UnitPieces } from "./places.ts";
import { openUses, type UseRecord } from "./use-record.ts";

/** How many entries are read ahead, at most. */
const AHEAD_BYTES = 16 * 2 ** 20;

/** Entries to be read ahead. */
const HEAD_WORDS = 1;
/** The unit, then the bits of its pages. */
const ENTRY_WORDS = 1 + WORDS_PER_UNIT;

/** Units and the bits of their pages, in order. */
type UnitBits = ReadonlyMap<number, Int32Array>;

/** Blocks of `blockPages` pages, unit by unit in the order of first use. */
function unitsOf(blocks: Iterable<number>, blockPages: number): UnitBits {
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
  return units;
}

/** The units of a start: those that it has used, in order, then those of its working set. */
export function unitsOfStart({ first, uses }: Pick<LoadHandle, "first" | "uses">): UnitBits {
  const record = openUses({ uses });
  const units = new Map(record === null ? [] : unitsOf(record.inOrder(), record.blockPages));
  for (const [unit, bits] of first === null ? [] : listedUnits(first)) {
    const used = units.get(unit);
    units.set(
      unit,
      bits.map((word, i) => word | (used?.[i] ?? 0)),
    );
  }
  return units;
}

/** The shared list of the pages of blocks. */
export function listFirstPages(
  blocks: readonly number[],
  blockPages: number,
): Int32Array<SharedArrayBuffer> {
  const units = unitsOf(blocks, blockPages);
  const words = HEAD_WORDS + ENTRY_WORDS * units.size;
  const entries = new Int32Array(new SharedArrayBuffer(4 * words));
  const bytes = (blocks.length * blockPages * PAGE_SIZE) / Math.max(1, units.size);
  entries[0] = Math.max(1, Math.min(FIRST_DEPTH_MAX, Math.floor(AHEAD_BYTES / bytes)));
  let at = HEAD_WORDS;
  for (const [unit, bits] of units) {
    entries[at] = unit;
    entries.set(bits, at + 1);
    at += ENTRY_WORDS;
  }
  return entries;
}

const countOf = (entries: Int32Array) => (entries.length - HEAD_WORDS) / ENTRY_WORDS;

/** How many entries should be on their way at once. */
export const aheadOf = (entries: Int32Array | null): number => entries?.[0] ?? 0;

/** The units of a list, in order. */
function listedUnits(entries: Int32Array): UnitBits {
  const units = new Map<number, Int32Array>();
  for (let at = HEAD_WORDS; at < entries.length; at += ENTRY_WORDS)
    units.set(entries[at]!, entries.subarray(at + 1, at + ENTRY_WORDS));
  return units;
}

/** True while first pages are left. `words` are LoadWord's. */
export function hasFirst(words: Int32Array, entries: Int32Array | null): boolean {
  return entries !== null && words[LoadWord.NextFirst]! < countOf(entries);
}

/**
 * Takes the next unit. Its pages' bits go to `want`; -1 at the end, or if this start is not like
 * the earlier ones. Units of which the program has used all blocks are left out: it has asked for
 * what it needs of them.
 */
export function takeFirst(state: LoadState, uses: UseRecord | null, want: Int32Array): number {
  const { first: entries } = state.handle;
  if (entries === null) return -1;
  const { words, unitCount } = state;
  if (uses?.isOther === true) Atomics.store(words, LoadWord.NextFirst, countOf(entries));
  // A plain read first, because every unit of the pass asks.
  while (hasFirst(words, entries)) {
    const entry = Atomics.add(words, LoadWord.NextFirst, 1);
    if (entry >= countOf(entries)) return -1;
    adviseEntry(state, entry + aheadOf(entries));
    const at = HEAD_WORDS + entry * ENTRY_WORDS;
    const unit = entries[at]!;
    if (unit >= unitCount) continue;
    want.set(entries.subarray(at + 1, at + ENTRY_WORDS));
    if (uses === null || !areUsed(uses, unit, want)) return unit;
  }
  return -1;
}

function areUsed(uses: UseRecord, unit: number, want: Int32Array): boolean {
  const { blockPages } = uses;
  for (let bit = 0; bit < PAGES_PER_UNIT; bit += blockPages) {
    const isWanted = (want[bit >>> 5]! & (1 << (bit & 31))) !== 0;
    if (isWanted && !uses.has((unit * PAGES_PER_UNIT + bit) / blockPages)) return false;
  }
  return true;
}

/** Before a load begins: has the kernel read the first entries. */
export function adviseFirst(state: LoadState): void {
  const { first } = state.handle;
  for (let entry = 0; entry < aheadOf(first); entry++) adviseEntry(state, entry);
}

/** Has the kernel read the pages of an entry, if the contents are in files. */
function adviseEntry(state: LoadState, entry: number): void {
  const { source, first } = state.handle;
  if (first === null || entry >= countOf(first) || !canAdvise(source)) return;
  const at = HEAD_WORDS + entry * ENTRY_WORDS;
  const unit = first[at]!;
  if (unit >= state.unitCount) return;
  const { places } = state;
  const { content: contents, offset, codec, storedBytes } = places.frames;
  pieces ??= new UnitPieces();
  const count = places.listPieces(unit, first.subarray(at + 1, at + ENTRY_WORDS), pieces);
  // Bytes [from, end) of a content, which the next piece may continue.
  let content = -1;
  let from = 0;
  let end = 0;
  const advise = () => {
    if (from < end) adviseContent(source, { content, offset: from, lengthBytes: end - from });
  };
  for (let i = 0; i < count; i++) {
    const frame = pieces.frame[i]!;
    const isRaw = codec[frame] === CodecId.Raw;
    const start = offset[frame]! + (isRaw ? pieces.framePage[i]! * PAGE_SIZE : 0);
    if (contents[frame] !== content || start !== end) {
      advise();
      content = contents[frame]!;
      from = start;
    }
    end = start + (isRaw ? pieces.pages[i]! * PAGE_SIZE : storedBytes[frame]!);
  }
  advise();
}

let pieces: UnitPieces | undefined;
