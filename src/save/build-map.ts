/**
 * Turns the save table into the columns of the manifest, in one pass over a MemoryFile's used
 * pages.
 */
import type { PageMap } from "../checkpoint/page-map.ts";
import { PAGES_PER_HUGE_PAGE as PAGES_PER_UNIT } from "../pages/units.ts";
import type { Slices } from "../threads/slices.ts";
import type { FrameList } from "./frame-list.ts";
import type { FileTable } from "./save-table.ts";

/** Steps of a slice: one for each page, and more for each row. A multiple of PAGES_PER_UNIT. */
const SLICE_STEPS = 2 ** 15;
const STEPS_PER_ROW = 16;
/** Rows of a slice. */
export const SLICE_ROWS = SLICE_STEPS / STEPS_PER_ROW;

/** Used pages: runs, ordered and disjoint. */
export interface UsedRuns {
  readonly start: Uint32Array;
  readonly length: Uint32Array;
}

/** Extents of a MemoryFile, with the save's numbers of their frames. */
export interface StoredExtents {
  readonly start: Uint32Array;
  readonly length: Uint32Array;
  /** Number of the frame in the save's list. */
  readonly frame: Uint32Array;
  readonly framePage: Uint32Array;
  /** Pages of all. */
  readonly pages: number;
}

export interface BuiltMap {
  readonly pageMap: PageMap;
  readonly crcs: Uint32Array;
  readonly hashes: BigUint64Array;
}

/** Rows of four u32, which can grow. */
class ExtentRows {
  private values = new Uint32Array(4096);
  count = 0;
  pages = 0;

  /** Joins rows whose contents follow one another, as those of neighbouring runs may. */
  add(start: number, length: number, frame: number, framePage: number): void {
    this.pages += length;
    const last = 4 * (this.count - 1);
    const before = last < 0 ? 0 : this.values[last + 1]!;
    const isNext =
      before > 0 &&
      this.values[last]! + before === start &&
      this.values[last + 2] === frame &&
      this.values[last + 3]! + before === framePage;
    if (isNext) this.values[last + 1] = before + length;
    else this.push(start, length, frame, framePage);
  }

  private push(start: number, length: number, frame: number, framePage: number): void {
    const at = 4 * this.count++;
    if (at === this.values.length) {
      const larger = new Uint32Array(2 * at);
      larger.set(this.values);
      this.values = larger;
    }
    const { values } = this;
    values[at] = start;
    values[at + 1] = length;
    values[at + 2] = frame;
    values[at + 3] = framePage;
  }

  finish(): StoredExtents {
    const { values, count, pages } = this;
    const column = (index: number) => {
      const column = new Uint32Array(count);
      for (let row = 0; row < count; row++) column[row] = values[4 * row + index]!;
      return column;
    };
    return { start: column(0), length: column(1), frame: column(2), framePage: column(3), pages };
  }
}

/** The used pages that have stored contents. */
export function* storedExtents(
  { start, length }: UsedRuns,
  table: FileTable,
): Slices<StoredExtents> {
  const rows = new ExtentRows();
  let steps = 0;
  for (let run = 0; run < start.length; run++) {
    const runEnd = start[run]! + length[run]!;
    for (let page = start[run]!, end = page; page < runEnd; page = end) {
      end = Math.min(runEnd, page - (page % SLICE_STEPS) + SLICE_STEPS);
      addExtents(rows, page, end, table);
      steps += STEPS_PER_ROW + end - page;
      if (steps < SLICE_STEPS) continue;
      steps = 0;
      yield;
    }
  }
  return rows.finish();
}

/** Adds the extents of pages [start, end). */
function addExtents(
  rows: ExtentRows,
  start: number,
  end: number,
  { frame, framePage }: FileTable,
): void {
  for (let page = start; page < end; ) {
    const number = frame[page]!;
    if (number === 0) {
      page++;
      continue;
    }
    const first = page;
    const offset = framePage[page]! - page;
    const most = Math.min(end, page - (page % PAGES_PER_UNIT) + PAGES_PER_UNIT);
    while (++page < most && frame[page] === number && framePage[page]! - page === offset);
    rows.add(first, page - first, number - 1, framePage[first]!);
  }
}

/** `contentOf`: the content index of each page file of the save's list. */
export function* buildMap(
  stored: StoredExtents,
  table: FileTable,
  frames: FrameList,
  contentOf: (pageFile: number) => number,
): Slices<BuiltMap> {
  const { start, length, frame, framePage } = stored;
  const { columns, rowOf } = frameRows(frame, frames, contentOf);
  const rows = new Uint32Array(frame.length);
  for (let i = 0; i < rows.length; i++) rows[i] = rowOf[frame[i]!]!;
  return {
    pageMap: { extents: { start, length, frame: rows, framePage }, frames: columns },
    ...(yield* collectColumns(stored, table)),
  };
}

function* collectColumns(
  stored: StoredExtents,
  { crc, hash }: FileTable,
): Slices<Pick<BuiltMap, "crcs" | "hashes">> {
  const crcs = new Uint32Array(stored.pages);
  const hashes = new BigUint64Array(hash === null ? 0 : stored.pages);
  const from = { crc, hash: hash ?? new Uint32Array(0) };
  const to = { crc: crcs, hash: wordsOf(hashes) };
  let rank = 0;
  for (let row = 0; row < stored.start.length; row += SLICE_ROWS) {
    rank = collectRows(stored, row, { from, to, rank });
    yield;
  }
  return { crcs, hashes };
}

/** Checksums, and hashes as pairs of words. */
export interface PageColumns {
  readonly crc: Uint32Array;
  readonly hash: Uint32Array;
}

/** Collects the columns of SLICE_ROWS extents from `row` on. Returns the rank after them. */
function collectRows(
  { start, length }: StoredExtents,
  row: number,
  { from, to, rank: first }: { from: PageColumns; to: PageColumns; rank: number },
): number {
  const end = Math.min(start.length, row + SLICE_ROWS);
  let rank = first;
  for (let i = row; i < end; i++) {
    copyColumns(from, start[i]!, to, rank, length[i]!);
    rank += length[i]!;
  }
  return rank;
}

/** To copy fewer pages one by one is faster than to make views of them. */
const VIEW_PAGES = 32;

/** Copies the columns of `count` pages; without hashes if there are none. */
export function copyColumns(
  from: PageColumns,
  fromIndex: number,
  to: PageColumns,
  toIndex: number,
  count: number,
): void {
  const hasHashes = to.hash.length > 0;
  if (count >= VIEW_PAGES) {
    to.crc.set(from.crc.subarray(fromIndex, fromIndex + count), toIndex);
    if (hasHashes)
      to.hash.set(from.hash.subarray(2 * fromIndex, 2 * (fromIndex + count)), 2 * toIndex);
    return;
  }
  for (let i = 0; i < count; i++) {
    to.crc[toIndex + i] = from.crc[fromIndex + i]!;
    if (!hasHashes) continue;
    to.hash[2 * (toIndex + i)] = from.hash[2 * (fromIndex + i)]!;
    to.hash[2 * (toIndex + i) + 1] = from.hash[2 * (fromIndex + i) + 1]!;
  }
}

/** A column of u64 as pairs of u32. */
export function wordsOf(column: BigUint64Array): Uint32Array {
  return new Uint32Array(column.buffer, column.byteOffset, 2 * column.length);
}

/**
 * The frames that extents use, ordered by content and offset, and the row of each. Their numbers
 * have the same order: a base's frames are ordered, and each new one is after all others.
 */
function frameRows(
  used: Uint32Array,
  frames: FrameList,
  contentOf: (pageFile: number) => number,
): { columns: PageMap["frames"]; rowOf: Uint32Array } {
  const rowOf = new Uint32Array(frames.count);
  for (const number of used) rowOf[number] = 1;
  const numbers: number[] = [];
  for (let number = 0; number < rowOf.length; number++) {
    if (rowOf[number] === 1) rowOf[number] = numbers.push(number) - 1;
  }
  const column = (values: readonly number[]) =>
    Uint32Array.from(numbers, (number) => values[number]!);
  return {
    columns: {
      content: Uint32Array.from(numbers, (number) => contentOf(frames.pageFile[number]!)),
      codec: column(frames.codec),
      pages: column(frames.pages),
      offset: Float64Array.from(numbers, (number) => frames.offset[number]!),
      storedBytes: Float64Array.from(numbers, (number) => frames.storedBytes[number]!),
    },
    rowOf,
  };
}
