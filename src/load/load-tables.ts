/**
 * The memory of a LoadState: the layout of its tables in a SharedArrayBuffer, and how they are
 * filled from a page map.
 *
 * The columns of the page map are shared memory too, if possible the memory into which the manifest
 * was read: copying 2 MiB of checksums (of 2 GiB) costs 1.2 ms in page faults. Filling the tables
 * is one flat pass over the extents. In a fresh process the first loop over 131,072 of them runs
 * interpreted, and a closure for each would take longer than all other work (12 ms instead of 2).
 */
import { CodecId } from "../codec/codec.ts";
import { BLOCK_PAGES, type ColumnPlace, type PageMap } from "../checkpoint/page-map.ts";
import { MAX_PARTICIPANTS } from "../control/control.ts";
import { setBits } from "../pages/bits.ts";
import { PAGES_PER_HUGE_PAGE } from "../pages/units.ts";
import type { PageSource } from "../source/description.ts";
import { URING_DEPTH_MAX } from "../source/file-source.ts";
import { ERROR_TABLE_BYTES } from "./error-table.ts";

export const PAGES_PER_UNIT = PAGES_PER_HUGE_PAGE;
export const WORDS_PER_UNIT = PAGES_PER_UNIT / 32;
const UNIT_SHIFT = Math.log2(PAGES_PER_UNIT);

/** Indexes of the 32-bit words at the start of `tables`. */
export const LoadWord = {
  /** Pages up to the end of the last unit with contents. */
  SizePages: 0,
  /** Pages with contents. */
  ContentPages: 1,
  /** Position of the background pass (order.ts). Atomics.add. */
  NextUnit: 2,
  /** 1 once loaders must leave as soon as they can. */
  Stop: 3,
  /**
   * Pages that are neither loaded nor failed. Atomics.sub; the thread that brings it to 0 ends the
   * load. Compare-exchange to count for dead threads.
   */
  PendingPages: 4,
  FailedPages: 5,
  LoadedPages: 6,
  /** Pages with contents that were read into huge pages. */
  HugePages: 7,
  /** Pages loaded because a program waited for them. */
  DemandPages: 8,
  ReadCalls: 9,
  /** The thread that runs the load, or 0. Compare-exchange, from a dead thread too (loader.ts). */
  Runner: 10,
  /** 1 once the load's hold of the source is released. Compare-exchange from 0. */
  Released: 11,
  /** The most reads that one background thread had in flight. Compare-exchange, upwards. */
  MostInFlight: 12,
  /**
   * The queue of the background pass: an index of QUEUES (load-stats.ts). Written before sharing.
   */
  Queue: 13,
  /** First unit of the last demand, plus 1; taken by exchange with 0. A hint. */
  NewestDemand: 14,
  /** The unit from which demands are taken in rotation. A hint. */
  NextDemand: 15,
  /**
   * Pages that are not in place: pending and failed ones. Atomics.sub, never up. The thread that
   * brings it to 0 clears Word.Loading.
   */
  MissingPages: 16,
  /**
   * Changes before failed pages become pending again, and before a thread counts for dead threads:
   * earlier reads of the bits are stale then.
   */
  Revision: 17,
  /** 1 if some frames are compressed. Written before sharing. */
  HasFrames: 18,
  /** Position in the first pages (first-pages.ts). Atomics.add. */
  NextFirst: 19,
  /** Loaded pages that are mapped. */
  MappedPages: 20,
  /** Pages that were read again because a network damaged them. */
  RefetchedPages: 21,
} as const;

/**
 * True if pages [start, end) include all pages to load. It may be more, because a file may have
 * grown. `words` are LoadWord's.
 */
export const isWhole = (words: Int32Array, start: number, end: number): boolean => {
  return start === 0 && end >= words[LoadWord.SizePages]!;
};

const HEADER_WORDS = 22;
/** The most units that one thread may have in flight. */
export const DEPTH_MAX = 32;
/** The same for first pages, which are few in each unit. */
export const FIRST_DEPTH_MAX = 128;
/**
 * The most claims: for each thread that uses the file one to read and one to drop, and those read
 * ahead.
 */
export const SLOTS = 2 * MAX_PARTICIPANTS + 4 * FIRST_DEPTH_MAX + URING_DEPTH_MAX;
/** Thread id, unit + 1, then the claimed bits. */
export const SLOT_WORDS = 2 + WORDS_PER_UNIT;

export interface LoadPlan {
  /** Validated: extents ordered and disjoint, frames within their contents. */
  readonly map: PageMap;
  readonly source: PageSource;
  /** For pages that are mapped instead of copied (memory/overlay.ts); null: none. */
  readonly overlay: SharedArrayBuffer | null;
  /** The group's shared memory, and the load's index in it (group.ts). */
  readonly group: SharedArrayBuffer;
  readonly index: number;
  /** The pages that the background pass reads first (first-pages.ts), or null. */
  readonly first?: Int32Array<SharedArrayBuffer> | null;
  /** The record of the program's uses (use-record.ts), or null. */
  readonly uses?: SharedArrayBuffer | null;
}

/** CRC-32 of each page by rank, or their place in the manifest. */
export type Checksums = Uint32Array | ColumnPlace;

/** A column of checksums, by rank, in blocks that are read on first use (checksum-column.ts). */
export interface SharedChecksums {
  readonly values: Uint32Array;
  /** One word for each block. */
  readonly states: Int32Array;
  readonly blockCrcs: Uint32Array;
  /** Byte offset of the column in the manifest. */
  readonly offset: number;
}

/** With this, other threads of the process open a LoadState. postMessage can copy it. */
export interface LoadHandle {
  readonly tables: SharedArrayBuffer;
  readonly map: PageMap;
  /** Null if the format has none, or there is nothing to load. Written before the load begins. */
  checksums: SharedChecksums | null;
  readonly source: PageSource;
  readonly overlay: SharedArrayBuffer | null;
  /** 1 for each extent whose pages are mapped. Written before the load begins. */
  readonly mappedExtents: Uint8Array;
  readonly group: SharedArrayBuffer;
  readonly index: number;
  readonly first: Int32Array<SharedArrayBuffer> | null;
  /** The record of the program's uses (use-record.ts), or null. */
  readonly uses: SharedArrayBuffer | null;
}

export interface LoadTables {
  readonly words: Int32Array;
  readonly unitCount: number;
  readonly started: Int32Array;
  readonly loaded: Int32Array;
  readonly failed: Int32Array;
  readonly mismatched: Int32Array;
  readonly wanted: Int32Array;
  readonly unitPending: Int32Array;
  /** The first extent with pages in the unit, or -1. */
  readonly unitFirstExtent: Int32Array;
  /** The rank of that extent's first page. */
  readonly unitFirstRank: Int32Array;
  readonly unitWaiters: Int32Array;
  readonly unitWanted: Int32Array;
  readonly unitError: Int32Array;
  readonly slots: Int32Array;
  readonly errors: Int32Array;
}

export function openLoadTables(tables: SharedArrayBuffer): LoadTables {
  const words = new Int32Array(tables, 0, HEADER_WORDS);
  const unitCount = words[LoadWord.SizePages]! / PAGES_PER_UNIT;
  const bitWords = unitCount * WORDS_PER_UNIT;
  let offset = 4 * HEADER_WORDS;
  const take = (count: number) => {
    const table = new Int32Array(tables, offset, count);
    offset += 4 * count;
    return table;
  };
  return {
    words,
    unitCount,
    started: take(bitWords),
    loaded: take(bitWords),
    failed: take(bitWords),
    mismatched: take(bitWords),
    wanted: take(bitWords),
    unitPending: take(unitCount),
    unitFirstExtent: take(unitCount),
    unitFirstRank: take(unitCount),
    unitWaiters: take(unitCount),
    unitWanted: take(Math.ceil(unitCount / 32)),
    unitError: take(unitCount),
    slots: take(SLOTS * SLOT_WORDS),
    errors: take(ERROR_TABLE_BYTES / 4),
  };
}

export function createLoad(plan: LoadPlan): LoadHandle {
  const map = shareMap(plan.map);
  const { start, length } = map.extents;
  const last = start.length - 1;
  const endPage = last < 0 ? 0 : start[last]! + length[last]!;
  const units = Math.ceil(endPage / PAGES_PER_UNIT);
  const unitWords = 5 * units * WORDS_PER_UNIT + 5 * units + Math.ceil(units / 32);
  const words = HEADER_WORDS + unitWords + SLOTS * SLOT_WORDS + ERROR_TABLE_BYTES / 4;
  const tables = new SharedArrayBuffer(4 * words);
  new Int32Array(tables)[LoadWord.SizePages] = units * PAGES_PER_UNIT;
  const opened = openLoadTables(tables);
  const pages = fill(opened, map.extents);
  opened.words[LoadWord.ContentPages] = pages;
  opened.words[LoadWord.PendingPages] = pages;
  opened.words[LoadWord.MissingPages] = pages;
  const { codec } = map.frames;
  const hasFrames = codec.includes(CodecId.Lz4) || codec.includes(CodecId.Zstd);
  opened.words[LoadWord.HasFrames] = hasFrames ? 1 : 0;
  const { source, overlay, group, index, first = null, uses = null } = plan;
  const mappedExtents = new Uint8Array(
    new SharedArrayBuffer(overlay === null ? 1 : start.length + 1),
  );
  const checksums = null;
  return { tables, map, checksums, source, overlay, mappedExtents, group, index, first, uses };
}

function shareMap({ extents, frames }: PageMap): PageMap {
  return {
    extents: {
      start: toShared(extents.start),
      length: toShared(extents.length),
      frame: toShared(extents.frame),
      framePage: toShared(extents.framePage),
    },
    frames: {
      content: toShared(frames.content),
      codec: toShared(frames.codec),
      offset: toShared(frames.offset),
      storedBytes: toShared(frames.storedBytes),
      pages: toShared(frames.pages),
    },
  };
}

/** Shared memory of a column, 8 MiB for 8 GiB of pages: the collector counts it as its own. */
export function shareChecksums(checksums: Checksums): SharedChecksums {
  const isEager = checksums instanceof Uint32Array;
  const count = isEager ? checksums.length : checksums.count;
  const blocks = Math.ceil(count / BLOCK_PAGES);
  return {
    values: isEager
      ? toShared(checksums)
      : new Uint32Array(new SharedArrayBuffer(4 * Math.max(1, count)), 0, count),
    states: new Int32Array(new SharedArrayBuffer(4 * Math.max(1, blocks)), 0, blocks).fill(
      isEager ? 1 : 0,
    ),
    blockCrcs: toShared(isEager ? new Uint32Array(blocks) : checksums.blockCrcs),
    offset: isEager ? 0 : checksums.offset,
  };
}

/** The column in shared memory: the same one, or a copy. */
function toShared<Column extends Uint32Array | Float64Array>(column: Column): Column {
  if ((column.buffer as ArrayBufferLike) instanceof SharedArrayBuffer) return column;
  const buffer = new SharedArrayBuffer(Math.max(8, column.byteLength));
  const copy =
    column instanceof Float64Array
      ? new Float64Array(buffer, 0, column.length)
      : new Uint32Array(buffer, 0, column.length);
  copy.set(column);
  return copy as Column;
}

type Extents = PageMap["extents"];

/** Fills the tables from extents. Returns how many pages have contents. */
function fill(tables: LoadTables, extents: Extents): number {
  tables.started.fill(-1);
  tables.unitFirstExtent.fill(-1);
  let position: Position = { extent: 0, rank: 0 };
  while (position.extent < extents.start.length) {
    position = enterWholeUnits(tables, extents, position);
    position = enterExtents(tables, extents, position);
  }
  // No read is under way yet, so pages that need not be started are loaded.
  tables.loaded.set(tables.started);
  return position.rank;
}

/** The next extent to enter, and the rank of its first page. */
interface Position {
  readonly extent: number;
  readonly rank: number;
}

/**
 * Enters the extents that are neighbouring whole units, as those of a dense image are: only two
 * stores each.
 */
function enterWholeUnits(
  { started, unitPending, unitFirstExtent, unitFirstRank }: LoadTables,
  { start: starts, length: lengths }: Extents,
  position: Position,
): Position {
  let { extent, rank } = position;
  let page = starts[extent]!;
  if ((page & (PAGES_PER_UNIT - 1)) !== 0) return position;
  const first = page >>> UNIT_SHIFT;
  let unit = first;
  while (starts[extent] === page && lengths[extent] === PAGES_PER_UNIT) {
    unitFirstExtent[unit] = extent++;
    unitFirstRank[unit++] = rank;
    rank += PAGES_PER_UNIT;
    page += PAGES_PER_UNIT;
  }
  started.fill(0, first * WORDS_PER_UNIT, unit * WORDS_PER_UNIT);
  unitPending.fill(PAGES_PER_UNIT, first, unit);
  return { extent, rank };
}

/**
 * Enters the extents up to the next one that is a whole unit. Values of a bitmap word or a unit are
 * gathered in variables and stored when the next one begins, because a store into a typed array is
 * the slowest step of an interpreted loop.
 */
function enterExtents(tables: LoadTables, extents: Extents, position: Position): Position {
  const { start: starts, length: lengths } = extents;
  const { started, unitFirstExtent, unitFirstRank, unitPending } = tables;
  let { extent, rank } = position;
  let word = -1;
  let bits = 0;
  let unit = -1;
  let pending = 0;
  for (; extent < starts.length; extent++) {
    const start = starts[extent]!;
    const count = lengths[extent]!;
    if (count === PAGES_PER_UNIT && (start & (PAGES_PER_UNIT - 1)) === 0) break;
    const last = start + count - 1;
    if (start >>> 5 !== word) {
      if (word >= 0) started[word] = bits;
      word = start >>> 5;
      bits = -1;
      if (start >>> UNIT_SHIFT !== unit) {
        if (unit >= 0) unitPending[unit] = pending;
        unit = start >>> UNIT_SHIFT;
        unitFirstExtent[unit] = extent;
        unitFirstRank[unit] = rank;
        pending = 0;
      }
    }
    const from = -1 << (start & 31);
    const lastWord = last >>> 5;
    const lastUnit = last >>> UNIT_SHIFT;
    if (lastWord === word) bits &= ~(from & (-1 >>> (31 - (last & 31))));
    else {
      started[word] = bits & ~from;
      started.fill(0, word + 1, lastWord);
      word = lastWord;
      bits = ~(-1 >>> (31 - (last & 31)));
    }
    if (lastUnit === unit) pending += count;
    else {
      unitPending[unit] = pending + PAGES_PER_UNIT - (start & (PAGES_PER_UNIT - 1));
      unitPending.fill(PAGES_PER_UNIT, unit + 1, lastUnit);
      unitFirstExtent.fill(extent, unit + 1, lastUnit + 1);
      unitFirstRank.fill(rank, unit + 1, lastUnit + 1);
      unit = lastUnit;
      pending = (last & (PAGES_PER_UNIT - 1)) + 1;
    }
    rank += count;
  }
  if (unit >= 0) unitPending[unit] = pending;
  if (unit >= 0) started[word] = bits;
  return { extent, rank };
}

/** Makes pages [start, end), which are pending, loaded ones that are mapped. Not atomic. */
export function skipPages(tables: LoadTables, start: number, end: number): void {
  const { words, started, loaded, unitPending } = tables;
  setBits(started, start, end);
  setBits(loaded, start, end);
  subtractPending(unitPending, start, end);
  const pages = end - start;
  words[LoadWord.PendingPages]! -= pages;
  words[LoadWord.MissingPages]! -= pages;
  words[LoadWord.LoadedPages]! += pages;
  words[LoadWord.MappedPages]! += pages;
}

function subtractPending(unitPending: Int32Array, start: number, end: number): void {
  // Whole units are [first, last), and all of their pages are pending.
  const first = Math.ceil(start / PAGES_PER_UNIT);
  const last = Math.floor(end / PAGES_PER_UNIT);
  if (first > last) {
    unitPending[last]! -= end - start;
    return;
  }
  unitPending.fill(0, first, last);
  if (start < first * PAGES_PER_UNIT) unitPending[first - 1]! -= first * PAGES_PER_UNIT - start;
  if (end > last * PAGES_PER_UNIT) unitPending[last]! -= end - last * PAGES_PER_UNIT;
}
