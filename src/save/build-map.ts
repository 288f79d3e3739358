/** From the save table to what the manifest stores: one pass over a MemoryFile's used pages. */
import type { PageMap } from "../checkpoint/page-map.ts";
import { PAGES_PER_HUGE_PAGE as PAGES_PER_UNIT } from "../pages/units.ts";
import type { FrameList } from "./frame-list.ts";
import type { FileTable } from "./save-table.ts";

/** Used pages: runs, ordered and disjoint. */
export interface UsedRuns {
  readonly start: Uint32Array;
  readonly length: Uint32Array;
}

export interface BuiltMap {
  readonly pageMap: PageMap;
  readonly crcs: Uint32Array;
  readonly hashes: BigUint64Array;
}

/** A column of u32 that grows. */
class Column {
  private values = new Uint32Array(1024);
  count = 0;

  push(value: number): void {
    if (this.count === this.values.length) {
      const larger = new Uint32Array(2 * this.values.length);
      larger.set(this.values);
      this.values = larger;
    }
    this.values[this.count++] = value;
  }

  finish(): Uint32Array {
    return this.values.slice(0, this.count);
  }
}

/** Extents of one MemoryFile, with numbers of the save's frames. */
class ExtentBuilder {
  readonly start = new Column();
  readonly length = new Column();
  readonly frame = new Column();
  readonly framePage = new Column();
  pages = 0;
  // The extent that may go on.
  private first = 0;
  private end = 0;
  private currentFrame = 0;
  private firstFramePage = 0;

  /** `frame` is the table's value, not 0. Pages come in order. */
  add(page: number, frame: number, framePage: number): void {
    this.pages++;
    const follows =
      page === this.end &&
      frame === this.currentFrame &&
      framePage === this.firstFramePage + page - this.first &&
      page % PAGES_PER_UNIT !== 0;
    if (!follows) {
      this.flush();
      this.first = page;
      this.currentFrame = frame;
      this.firstFramePage = framePage;
    }
    this.end = page + 1;
  }

  flush(): void {
    if (this.end === this.first) return;
    this.start.push(this.first);
    this.length.push(this.end - this.first);
    this.frame.push(this.currentFrame - 1);
    this.framePage.push(this.firstFramePage);
    this.first = this.end = 0;
  }
}

/** `contentOf`: the content index of each page file of the save's list. */
export function buildMap(
  { start, length }: UsedRuns,
  table: FileTable,
  frames: FrameList,
  contentOf: (pageFile: number) => number,
): BuiltMap {
  const extents = new ExtentBuilder();
  forEachStored({ start, length }, table, (page, frame) =>
    extents.add(page, frame, table.framePage[page]!),
  );
  extents.flush();
  const frameNumbers = extents.frame.finish();
  const rows = frameRows(frameNumbers, frames, contentOf);
  const crcs = new Uint32Array(extents.pages);
  const hashes = new BigUint64Array(extents.pages);
  let rank = 0;
  const starts = extents.start.finish();
  const lengths = extents.length.finish();
  for (let i = 0; i < starts.length; i++) {
    const first = starts[i]!;
    const end = first + lengths[i]!;
    crcs.set(table.crc.subarray(first, end), rank);
    if (table.hash !== null) hashes.set(table.hash.subarray(first, end), rank);
    rank += lengths[i]!;
  }
  return {
    pageMap: {
      extents: {
        start: starts,
        length: lengths,
        frame: frameNumbers.map((number) => rows.rowOf.get(number)!),
        framePage: extents.framePage.finish(),
      },
      frames: rows.columns,
    },
    crcs,
    hashes,
  };
}

/** Calls `visit` with each used page that has stored contents. */
export function forEachStored(
  { start, length }: UsedRuns,
  { frame }: FileTable,
  visit: (page: number, frame: number) => void,
): void {
  for (let run = 0; run < start.length; run++) {
    const end = start[run]! + length[run]!;
    for (let page = start[run]!; page < end; page++)
      if (frame[page] !== 0) visit(page, frame[page]!);
  }
}

/** The frames that extents use, ordered by content and offset, and the row of each. */
function frameRows(
  used: Uint32Array,
  frames: FrameList,
  contentOf: (pageFile: number) => number,
): { columns: PageMap["frames"]; rowOf: ReadonlyMap<number, number> } {
  const numbers = [...new Set(used)];
  numbers.sort(
    (a, b) =>
      contentOf(frames.pageFile[a]!) - contentOf(frames.pageFile[b]!) ||
      frames.offset[a]! - frames.offset[b]!,
  );
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
    rowOf: new Map(numbers.map((number, row) => [number, row])),
  };
}
