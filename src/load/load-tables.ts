/**
 * The memory of a LoadState: where its tables stand in two SharedArrayBuffers, and how they are filled from a plan.
 *
 * `columns` is what the plan came with: extents and checksums. A native checkpoint is read into shared memory, and then
 * these are views of what was read, since copying 2 MiB of them (the checksums of 2 GiB) costs 1.2 ms in page faults alone.
 * `tables` is what loading changes. Filling it is one flat pass over the extents: the first loop over 131,072 of them in a
 * fresh process runs interpreted, where a closure for each costs more than all the work (12 ms against 2).
 */
import { MAX_PARTICIPANTS } from "../control/control.ts";
import { PAGES_PER_HUGE_PAGE } from "../pages/units.ts";

export const PAGES_PER_UNIT = PAGES_PER_HUGE_PAGE;
export const WORDS_PER_UNIT = PAGES_PER_UNIT / 32;
const UNIT_SHIFT = Math.log2(PAGES_PER_UNIT);

/** Indexes of the 32-bit words at the start of `tables`. */
export const LoadWord = {
  SizePages: 0,
  ExtentCount: 1,
  /** Pages with contents in the pages file. */
  ContentPages: 2,
  /** The next unit of the background pass. Atomics.add. */
  NextUnit: 3,
  /** Bumped when somebody waits for pages that are missing, or the load ends. Waited for by the demand thread. */
  Demand: 4,
  /** 1: loaders leave as soon as they can. */
  Stop: 5,
  /** Pages that are neither loaded nor failed. Atomics.sub; who brings it to 0 ends the load. Of what the dead left, compare-exchange. */
  PendingPages: 6,
  FailedPages: 7,
  LoadedPages: 8,
  /** Pages with contents that were read into huge pages. */
  HugePages: 9,
  /** Pages loaded because somebody waited for them. */
  DemandPages: 10,
  ReadCalls: 11,
  /** Where the columns stand in `columns`, in bytes. */
  ExtentStartAt: 12,
  ExtentLengthAt: 13,
  ChecksumsAt: 14,
  /** 0 if the format has no checksums, else as many as ContentPages. */
  ChecksumCount: 15,
  /** As many as ExtentCount, or 0 if each extent's contents follow the one before. */
  OffsetCount: 16,
  /** The thread that runs the background pass; compare-exchange from a dead one by who takes over. */
  Owner: 17,
  /** The most reads that one background thread had in flight. Compare-exchange, upwards. */
  MostInFlight: 18,
  /** What the background pass reads by: an index of QUEUES (choose-queue.ts). Written before the state is shared. */
  Queue: 19,
  /** Descriptor of the pages file past the page cache, plus 1; 0: none. Closed by the owner. Written before the state is shared. */
  DirectFd: 20,
  /** 1 while the demand thread serves. Written by that thread; a hint to waiters, who read for themselves without it. */
  DemandServed: 21,
  /** First unit of the last demand, plus 1; taken by exchange with 0. A hint: what is wanted stands in the bitmaps. */
  NewestDemand: 22,
  /** The unit from which demands are taken in turn. A hint. */
  NextDemand: 23,
  /** 1 once a background thread reads. Written by those threads. */
  Begun: 24,
  /** Pages that are not in place: pending and failed ones. Atomics.sub, never up; who brings it to 0 clears Loading. */
  MissingPages: 25,
  /** Bumped before failed pages become pending again, and by who is about to count for the dead: what was read before is stale. */
  Revision: 26,
} as const;

/** True if pages [start, end) are all that there is to load, or more: a file may have grown since. `words` are LoadWord's. */
export const isWhole = (words: Int32Array, start: number, end: number): boolean => {
  return start === 0 && end >= words[LoadWord.SizePages]!;
};

/** Even, since floats follow. */
const HEADER_WORDS = 28;
/** Units that a thread has in flight over io_uring: 16 MiB, more than the devices gained from that this was measured on. */
export const URING_DEPTH_MAX = 8;
/** Claims: of each thread that uses the file one to read and one to drop, and those of the one that reads ahead over io_uring. */
export const SLOTS = 2 * MAX_PARTICIPANTS + URING_DEPTH_MAX;
/** Thread id, unit + 1, then the claimed bits. */
export const SLOT_WORDS = 2 + WORDS_PER_UNIT;

/** Rings that loading threads may have at once, those of dead threads with reads still in flight among them. */
export const RINGS = 8;
/** Words and floats of a record (ring-table.ts). */
export const RING_WORDS = 3;
export const RING_FIELDS = 6;

export interface LoadPlan {
  readonly sizePages: number;
  /** Ordered by page, disjoint. */
  readonly extentStart: Uint32Array;
  readonly extentLength: Uint32Array;
  /** Byte offset of each extent's contents in the pages file; a number: of the first, when each follows the one before. */
  readonly extentOffset: Float64Array | number;
  /** CRC-32 of each page with contents, in the order of the extents; null if the format has none. */
  readonly checksums: Uint32Array | null;
}

/** What other threads of the process open a LoadState by: structured-cloneable. */
export interface LoadHandle {
  readonly tables: SharedArrayBuffer;
  readonly columns: SharedArrayBuffer;
}

export interface LoadTables {
  readonly words: Int32Array;
  readonly extentStart: Uint32Array;
  readonly extentLength: Uint32Array;
  /** Offset of the first extent's contents, in one element. */
  readonly firstOffset: Float64Array;
  readonly extentOffset: Float64Array;
  /** Empty if the format has none. */
  readonly checksums: Uint32Array;
  readonly unitCount: number;
  readonly started: Int32Array;
  readonly loaded: Int32Array;
  readonly failed: Int32Array;
  readonly mismatched: Int32Array;
  readonly wanted: Int32Array;
  readonly unitPending: Int32Array;
  /** The first extent with pages in the unit, or -1. */
  readonly unitFirstExtent: Int32Array;
  /** How many pages with contents the extents before that one have: the index of its first checksum. */
  readonly unitFirstContent: Int32Array;
  readonly unitWaiters: Int32Array;
  readonly unitWanted: Int32Array;
  readonly unitError: Int32Array;
  readonly slots: Int32Array;
  readonly rings: Int32Array;
  readonly ringPlaces: Float64Array;
}

export function openLoadTables({ tables, columns }: LoadHandle): LoadTables {
  const words = new Int32Array(tables, 0, HEADER_WORDS);
  const extents = words[LoadWord.ExtentCount]!;
  const unitCount = Math.ceil(words[LoadWord.SizePages]! / PAGES_PER_UNIT);
  const bitWords = unitCount * WORDS_PER_UNIT;
  let offset = 4 * HEADER_WORDS;
  const takeFloats = (count: number) => {
    const table = new Float64Array(tables, offset, count);
    offset += 8 * count;
    return table;
  };
  const take = (count: number) => {
    const table = new Int32Array(tables, offset, count);
    offset += 4 * count;
    return table;
  };
  return {
    words,
    extentStart: new Uint32Array(columns, words[LoadWord.ExtentStartAt], extents),
    extentLength: new Uint32Array(columns, words[LoadWord.ExtentLengthAt], extents),
    checksums: new Uint32Array(columns, words[LoadWord.ChecksumsAt], words[LoadWord.ChecksumCount]),
    unitCount,
    firstOffset: takeFloats(1),
    extentOffset: takeFloats(words[LoadWord.OffsetCount]!),
    ringPlaces: takeFloats(RINGS * RING_FIELDS),
    started: take(bitWords),
    loaded: take(bitWords),
    failed: take(bitWords),
    mismatched: take(bitWords),
    wanted: take(bitWords),
    unitPending: take(unitCount),
    unitFirstExtent: take(unitCount),
    unitFirstContent: take(unitCount),
    unitWaiters: take(unitCount),
    unitWanted: take(Math.ceil(unitCount / 32)),
    unitError: take(unitCount),
    slots: take(SLOTS * SLOT_WORDS),
    rings: take(RINGS * RING_WORDS),
  };
}

/** Precondition: the plan has been validated (checkpoint/decode.ts): extents ordered, disjoint, within the size. */
export function createLoadTables(plan: LoadPlan): LoadHandle {
  const { sizePages, extentOffset } = plan;
  const { buffer: columns, views } = shareColumns([
    plan.extentStart,
    plan.extentLength,
    plan.checksums ?? new Uint32Array(0),
  ]);
  const [extentStart, extentLength, checksums] = views as [Uint32Array, Uint32Array, Uint32Array];
  const offsets = typeof extentOffset === "number" ? 0 : extentOffset.length;
  const units = Math.ceil(sizePages / PAGES_PER_UNIT);
  const floats = 1 + offsets + RINGS * RING_FIELDS;
  const unitWords = 5 * units * WORDS_PER_UNIT + 5 * units + Math.ceil(units / 32);
  const words = HEADER_WORDS + 2 * floats + unitWords + SLOTS * SLOT_WORDS + RINGS * RING_WORDS;
  const tables = new SharedArrayBuffer(4 * words);
  const header = new Int32Array(tables, 0, HEADER_WORDS);
  header[LoadWord.SizePages] = sizePages;
  header[LoadWord.ExtentCount] = extentStart.length;
  header[LoadWord.ExtentStartAt] = extentStart.byteOffset;
  header[LoadWord.ExtentLengthAt] = extentLength.byteOffset;
  header[LoadWord.ChecksumsAt] = checksums.byteOffset;
  header[LoadWord.ChecksumCount] = checksums.length;
  header[LoadWord.OffsetCount] = offsets;
  const handle = { tables, columns };
  const opened = openLoadTables(handle);
  if (typeof extentOffset === "number") opened.firstOffset[0] = extentOffset;
  else opened.extentOffset.set(extentOffset);
  header[LoadWord.ContentPages] =
    header[LoadWord.PendingPages] =
    header[LoadWord.MissingPages] =
      fill(opened);
  return handle;
}

/** The columns as views of one SharedArrayBuffer: the one they are in, or a copy. */
function shareColumns(columns: readonly Uint32Array[]): {
  buffer: SharedArrayBuffer;
  views: Uint32Array[];
} {
  const buffer = columns[0]!.buffer as ArrayBufferLike;
  const present = columns.filter((column) => column.length > 0);
  if (buffer instanceof SharedArrayBuffer && present.every((column) => column.buffer === buffer)) {
    return {
      buffer,
      views: columns.map((column) => (column.length > 0 ? column : new Uint32Array(buffer, 0, 0))),
    };
  }
  const copy = new SharedArrayBuffer(columns.reduce((sum, column) => sum + column.byteLength, 0));
  let at = 0;
  const views = columns.map((column) => {
    const view = new Uint32Array(copy, at, column.length);
    view.set(column);
    at += column.byteLength;
    return view;
  });
  return { buffer: copy, views };
}

/**
 * Enters every extent. Returns how many pages have contents. What concerns a bitmap word or a unit is gathered in variables
 * and stored when the next one begins: a store into a typed array is the dearest step of an interpreted loop.
 */
function fill(tables: LoadTables): number {
  const { extentStart, extentLength, started, unitFirstExtent, unitFirstContent, unitPending } =
    tables;
  started.fill(-1);
  unitFirstExtent.fill(-1);
  let content = 0;
  let word = -1;
  let bits = 0;
  let unit = -1;
  let pending = 0;
  for (let extent = 0; extent < extentStart.length; extent++) {
    const start = extentStart[extent]!;
    const count = extentLength[extent]!;
    const last = start + count - 1;
    if (start >>> 5 !== word) {
      if (word >= 0) started[word] = bits;
      word = start >>> 5;
      bits = -1;
      if (start >>> UNIT_SHIFT !== unit) {
        if (unit >= 0) unitPending[unit] = pending;
        unit = start >>> UNIT_SHIFT;
        unitFirstExtent[unit] = extent;
        unitFirstContent[unit] = content;
        pending = 0;
      }
    }
    const from = -1 << (start & 31);
    const lastWord = last >>> 5;
    if (lastWord === word) {
      bits &= ~(from & (-1 >>> (31 - (last & 31))));
      pending += count;
      content += count;
      continue;
    }
    started[word] = bits & ~from;
    started.fill(0, word + 1, lastWord);
    word = lastWord;
    bits = ~(-1 >>> (31 - (last & 31)));
    const lastUnit = last >>> UNIT_SHIFT;
    if (lastUnit === unit) {
      pending += count;
    } else {
      unitPending[unit] = pending + PAGES_PER_UNIT - (start & (PAGES_PER_UNIT - 1));
      unitPending.fill(PAGES_PER_UNIT, unit + 1, lastUnit);
      unitFirstExtent.fill(extent, unit + 1, lastUnit + 1);
      unitFirstContent.fill(content, unit + 1, lastUnit + 1);
      unit = lastUnit;
      pending = (last & (PAGES_PER_UNIT - 1)) + 1;
    }
    content += count;
  }
  if (unit >= 0) {
    unitPending[unit] = pending;
    started[word] = bits;
  }
  // Nothing is being read yet, so what need not be started is loaded.
  tables.loaded.set(started);
  return content;
}
