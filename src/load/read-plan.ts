/**
 * ReadPlan: the reads of one claimed unit, and which pages each of them is for.
 *
 * A run is pages that follow one another in memory, in rank and in their content. There are three
 * kinds of reads:
 * - Pages: raw contents, read into place. Runs that follow one another in a content are one read,
 *   as in gVisor's combineReads (pgalloc/save_restore.go).
 * - Frame: a compressed frame, read whole into scratch memory and decoded from there.
 * - Block: a block of checksums, from the manifest.
 *
 * A Pages read covers `pages` pages from page `skip` of its first run on, so that it can be cut, or
 * split after a failure, without changing the runs. All state is in typed arrays that are reused.
 */
import { MAX_IOVECS } from "../../ffi/index.ts";
import { CodecId } from "../codec/codec.ts";
import { PAGE_SIZE } from "../pages/units.ts";
import { PAGES_PER_UNIT } from "./load-tables.ts";
import type { Places } from "./places.ts";

export const ReadKind = { Pages: 0, Frame: 1, Block: 2 } as const;

/** Reads of a unit: at most one a page, two blocks, and those that splitting adds. */
export const READS_MAX = 1024;
const RUNS_MAX = PAGES_PER_UNIT;

export interface PlanLimits {
  /** A multiple of PAGE_SIZE. */
  readonly readBytesMax: number;
}

export class ReadPlan {
  readCount = 0;
  /** The ranks of the unit's pages are in [firstRank, endRank). */
  firstRank = 0;
  endRank = 0;
  readonly kind = new Uint8Array(READS_MAX);
  readonly content = new Uint32Array(READS_MAX);
  readonly offset = new Float64Array(READS_MAX);
  readonly lengthBytes = new Float64Array(READS_MAX);
  /** Row of the frame, or number of the block. */
  readonly item = new Uint32Array(READS_MAX);
  /** Pages of the read: its first run, pages to skip in that, and how many. */
  private readonly firstRun = new Uint32Array(READS_MAX);
  private readonly skip = new Uint32Array(READS_MAX);
  private readonly pages = new Uint32Array(READS_MAX);
  private runCount = 0;
  private readonly runPage = new Uint32Array(RUNS_MAX);
  private readonly runPages = new Uint32Array(RUNS_MAX);
  private readonly runRank = new Uint32Array(RUNS_MAX);
  private readonly runFrame = new Uint32Array(RUNS_MAX);
  private readonly runFramePage = new Uint32Array(RUNS_MAX);
  private readonly iovecs = new Float64Array(2 * MAX_IOVECS);

  /** Plans to read the pages in `want`, bits of the unit. */
  build(places: Places, unit: number, want: Int32Array, limits: PlanLimits): void {
    const { frames } = places;
    this.readCount = this.runCount = 0;
    this.firstRank = this.endRank = -1;
    let hasFrames = false;
    let op = -1;
    // Pieces come in the order of their ranks.
    places.forEachPiece(unit, want, (page, pages, rank, frame, framePage) => {
      if (this.firstRank < 0) this.firstRank = rank;
      this.endRank = rank + pages;
      if (frames.codec[frame] !== CodecId.Raw) {
        hasFrames = true;
        return;
      }
      const offset = frames.offset[frame]! + framePage * PAGE_SIZE;
      op = this.addRaw(op, frames.content[frame]!, offset, page, pages, rank, limits.readBytesMax);
    });
    if (hasFrames) this.addFrames(places, unit, want);
  }

  /** Adds a raw run: to read `op` if it goes on there. Returns the read that the run ends in. */
  private addRaw(
    op: number,
    content: number,
    offset: number,
    page: number,
    pages: number,
    rank: number,
    readBytesMax: number,
  ): number {
    let joins = op >= 0 && content === this.content[op];
    joins &&= this.offset[op]! + this.lengthBytes[op]! === offset;
    let run = this.runCount - 1;
    if (joins && this.runPage[run]! + this.runPages[run]! === page) this.runPages[run]! += pages;
    else run = this.addRun(page, pages, rank);
    if (joins && run - this.firstRun[op]! >= MAX_IOVECS) joins = false;
    let at = offset;
    let skip = this.runPages[run]! - pages;
    for (let left = pages; left > 0; ) {
      if (!joins || this.lengthBytes[op]! >= readBytesMax) {
        op = this.addRead(ReadKind.Pages, content, at, 0);
        this.firstRun[op] = run;
        this.skip[op] = skip;
      }
      joins = true;
      const room = (readBytesMax - this.lengthBytes[op]!) / PAGE_SIZE;
      const taken = Math.min(left, room);
      this.pages[op]! += taken;
      this.lengthBytes[op]! += taken * PAGE_SIZE;
      at += taken * PAGE_SIZE;
      skip += taken;
      left -= taken;
    }
    return op;
  }

  private addRun(page: number, pages: number, rank: number): number {
    const run = this.runCount++;
    this.runPage[run] = page;
    this.runPages[run] = pages;
    this.runRank[run] = rank;
    return run;
  }

  private addRead(kind: number, content: number, offset: number, lengthBytes: number): number {
    const op = this.readCount++;
    this.kind[op] = kind;
    this.content[op] = content;
    this.offset[op] = offset;
    this.lengthBytes[op] = lengthBytes;
    this.pages[op] = this.skip[op] = 0;
    return op;
  }

  /** One read for each compressed frame that has wanted pages, with their runs one by one. */
  private addFrames(places: Places, unit: number, want: Int32Array): void {
    const { frames } = places;
    const done = new Set<number>([-1]);
    for (let next = 0; next >= 0; ) {
      let current = -1;
      next = -1;
      let op = -1;
      places.forEachPiece(unit, want, (page, pages, rank, frame, framePage) => {
        if (frames.codec[frame] === CodecId.Raw || done.has(frame)) return;
        if (current < 0) {
          current = frame;
          const stored = frames.storedBytes[frame]!;
          op = this.addRead(ReadKind.Frame, frames.content[frame]!, frames.offset[frame]!, stored);
          this.item[op] = frame;
          this.firstRun[op] = this.runCount;
        }
        if (frame !== current) {
          next = frame;
          return;
        }
        const run = this.addRun(page, pages, rank);
        this.runFrame[run] = frame;
        this.runFramePage[run] = framePage;
        this.pages[op]! += pages;
      });
      done.add(current);
    }
  }

  /** Adds a read of a block of checksums. */
  addBlock(block: number, place: { readonly offset: number; readonly lengthBytes: number }): void {
    const op = this.addRead(ReadKind.Block, 0, place.offset, place.lengthBytes);
    this.item[op] = block;
  }

  /** The pages of a read, as runs: `visit(page, pages, rank, framePage)`. */
  forEachRun(
    op: number,
    visit: (page: number, pages: number, rank: number, framePage: number) => void,
  ): void {
    let skip = this.skip[op]!;
    let left = this.pages[op]!;
    for (let run = this.firstRun[op]!; left > 0; run++) {
      const pages = Math.min(left, this.runPages[run]! - skip);
      visit(
        this.runPage[run]! + skip,
        pages,
        this.runRank[run]! + skip,
        this.runFramePage[run]! + skip,
      );
      left -= pages;
      skip = 0;
    }
  }

  /** Calls `visit(page, pages, rank)` for all runs of the unit. */
  forEachOfUnit(visit: (page: number, pages: number, rank: number) => void): void {
    for (let run = 0; run < this.runCount; run++)
      visit(this.runPage[run]!, this.runPages[run]!, this.runRank[run]!);
  }

  /** Memory of a Pages read, with `base` the address of page 0: valid until the next call. */
  iovecsOf(op: number, base: number): { iovecs: Float64Array; count: number } {
    const { iovecs } = this;
    let count = 0;
    this.forEachRun(op, (page, pages) => {
      iovecs[2 * count] = base + page * PAGE_SIZE;
      iovecs[2 * count++ + 1] = pages * PAGE_SIZE;
    });
    return { iovecs, count };
  }

  /**
   * Adds two reads for the halves of a Pages read that failed, in its place. False if it is of one
   * page, or there is no room.
   */
  split(op: number): boolean {
    const pages = this.pages[op]!;
    if (pages < 2 || this.readCount + 2 > READS_MAX) return false;
    const half = Math.ceil(pages / 2);
    this.addPart(op, 0, half);
    this.addPart(op, half, pages - half);
    return true;
  }

  private addPart(op: number, first: number, pages: number): void {
    const offset = this.offset[op]! + first * PAGE_SIZE;
    const part = this.addRead(ReadKind.Pages, this.content[op]!, offset, pages * PAGE_SIZE);
    let run = this.firstRun[op]!;
    let skip = this.skip[op]! + first;
    while (skip >= this.runPages[run]!) skip -= this.runPages[run++]!;
    this.firstRun[part] = run;
    this.skip[part] = skip;
    this.pages[part] = pages;
  }
}
