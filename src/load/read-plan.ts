/**
 * ReadPlan: the reads of one claimed unit, and the pages that each of them fills.
 *
 * A run is pages that follow one another in memory, in rank and in their content. There are four
 * kinds of reads:
 * - Pages: raw contents, read into place. Runs that follow one another in a content are one read,
 *   as in gVisor's combineReads (pgalloc/save_restore.go).
 * - Frame: a compressed frame, read whole into scratch memory and decoded from there.
 * - Mapped: raw contents that are mapped already: they are populated, not read.
 * - Block: a block of checksums, from the manifest.
 *
 * A Pages read covers `pages` pages from page `skip` of its first run on, so that it can be cut, or
 * split after a failure, without changing the runs. All state is in typed arrays that are reused.
 */
import { CodecId } from "../codec/codec.ts";
import { PAGE_SIZE } from "../pages/units.ts";
import { PAGES_PER_UNIT } from "./load-tables.ts";
import { UnitPieces, type Places } from "./places.ts";

export const ReadKind = { Pages: 0, Frame: 1, Block: 2, Mapped: 3 } as const;

/** The most reads of a unit: one for each page, two blocks, and those that splitting adds. */
export const READS_MAX = 1024;
const RUNS_MAX = PAGES_PER_UNIT;

export interface PlanLimits {
  /** A multiple of PAGE_SIZE. */
  readonly readBytesMax: number;
}

export class ReadPlan {
  readCount = 0;
  /** Pages of the unit that are mapped. */
  mappedPages = 0;
  /** The ranks of the unit's pages are in [firstRank, endRank). */
  firstRank = 0;
  endRank = 0;
  readonly kind = new Uint8Array(READS_MAX);
  readonly content = new Uint32Array(READS_MAX);
  readonly offset = new Float64Array(READS_MAX);
  readonly lengthBytes = new Float64Array(READS_MAX);
  /** Row of the frame, or number of the block. */
  readonly item = new Uint32Array(READS_MAX);
  /** Pages of the read: its first run, pages to skip in that, and their number. */
  private readonly firstRun = new Uint32Array(READS_MAX);
  private readonly skip = new Uint32Array(READS_MAX);
  private readonly pages = new Uint32Array(READS_MAX);
  private readonly pieces = new UnitPieces();
  private runCount = 0;
  private readonly runPage = new Uint32Array(RUNS_MAX);
  private readonly runPages = new Uint32Array(RUNS_MAX);
  private readonly runRank = new Uint32Array(RUNS_MAX);
  private readonly runFramePage = new Uint32Array(RUNS_MAX);
  private readonly iovecs = new Float64Array(2 * RUNS_MAX);

  /** Plans the reads of the pages in `want`, bits of the unit. */
  build(places: Places, unit: number, want: Int32Array, limits: PlanLimits): void {
    const { pieces } = this;
    const { codec, content, offset } = places.frames;
    const { readBytesMax } = limits;
    const count = places.listPieces(unit, want, pieces);
    this.readCount = this.runCount = this.mappedPages = 0;
    // Pieces are in the order of their ranks.
    this.firstRank = pieces.rank[0]!;
    this.endRank = pieces.rank[count - 1]! + pieces.pages[count - 1]!;
    let hasFrames = false;
    let op = -1;
    for (let i = 0; i < count; i++) {
      const frame = pieces.frame[i]!;
      if (codec[frame] !== CodecId.Raw) hasFrames = true;
      else {
        const at = offset[frame]! + pieces.framePage[i]! * PAGE_SIZE;
        const kind = pieces.isMapped[i] !== 0 ? ReadKind.Mapped : ReadKind.Pages;
        op = this.addRaw(op, kind, content[frame]!, at, i, readBytesMax);
        if (kind === ReadKind.Mapped) this.mappedPages += pieces.pages[i]!;
      }
    }
    if (hasFrames) this.addFrames(places, count);
  }

  /**
   * Adds raw piece `i`, to read `op` if it continues there. Returns the read in which the piece
   * ends.
   */
  private addRaw(
    op: number,
    kind: number,
    content: number,
    offset: number,
    i: number,
    readBytesMax: number,
  ): number {
    const { pieces, lengthBytes, runPage, runPages } = this;
    const page = pieces.page[i]!;
    const pages = pieces.pages[i]!;
    let joins =
      op >= 0 &&
      kind === this.kind[op] &&
      content === this.content[op] &&
      this.offset[op]! + lengthBytes[op]! === offset &&
      lengthBytes[op]! < readBytesMax;
    let run = this.runCount - 1;
    if (joins && runPage[run]! + runPages[run]! === page) runPages[run]! += pages;
    else run = this.addRun(page, pages, pieces.rank[i]!);
    let at = offset;
    let skip = runPages[run]! - pages;
    for (let left = pages; left > 0; ) {
      if (!joins || lengthBytes[op]! >= readBytesMax) {
        op = this.addRead(kind, content, at, 0);
        this.firstRun[op] = run;
        this.skip[op] = skip;
        joins = true;
      }
      const taken = Math.min(left, (readBytesMax - lengthBytes[op]!) / PAGE_SIZE);
      this.pages[op]! += taken;
      lengthBytes[op]! += taken * PAGE_SIZE;
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

  /** Adds one read for each compressed frame with wanted pages, and their runs one by one. */
  private addFrames({ frames }: Places, count: number): void {
    const { pieces } = this;
    const done = new Set<number>();
    for (let first = 0; first < count; first++) {
      const frame = pieces.frame[first]!;
      if (frames.codec[frame] === CodecId.Raw || done.has(frame)) continue;
      done.add(frame);
      const stored = frames.storedBytes[frame]!;
      const op = this.addRead(
        ReadKind.Frame,
        frames.content[frame]!,
        frames.offset[frame]!,
        stored,
      );
      this.item[op] = frame;
      this.firstRun[op] = this.runCount;
      for (let i = first; i < count; i++) {
        if (pieces.frame[i] !== frame) continue;
        const run = this.addRun(pieces.page[i]!, pieces.pages[i]!, pieces.rank[i]!);
        this.runFramePage[run] = pieces.framePage[i]!;
        this.pages[op]! += pieces.pages[i]!;
      }
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

  /** Memory of a Pages read, valid until the next call. `base` is the address of page 0. */
  iovecsOf(op: number, base: number): { iovecs: Float64Array; count: number } {
    const { iovecs, runPage, runPages } = this;
    let count = 0;
    let skip = this.skip[op]!;
    let left = this.pages[op]!;
    for (let run = this.firstRun[op]!; left > 0; run++) {
      const pages = Math.min(left, runPages[run]! - skip);
      iovecs[2 * count] = base + (runPage[run]! + skip) * PAGE_SIZE;
      iovecs[2 * count++ + 1] = pages * PAGE_SIZE;
      left -= pages;
      skip = 0;
    }
    return { iovecs, count };
  }

  /**
   * Replaces a failed Pages read by two reads for its halves. False if it has one page, or there is
   * no room.
   */
  split(op: number): boolean {
    const pages = this.pages[op]!;
    if (pages < 2 || this.readCount + 2 > READS_MAX) return false;
    const half = Math.ceil(pages / 2);
    this.addPart(op, 0, half);
    this.addPart(op, half, pages - half);
    this.pages[op] = 0;
    return true;
  }

  /** True if other reads replace this one. */
  isSplit(op: number): boolean {
    return this.pages[op] === 0;
  }

  private addPart(op: number, first: number, pages: number): void {
    const offset = this.offset[op]! + first * PAGE_SIZE;
    const part = this.addRead(this.kind[op]!, this.content[op]!, offset, pages * PAGE_SIZE);
    let run = this.firstRun[op]!;
    let skip = this.skip[op]! + first;
    while (skip >= this.runPages[run]!) skip -= this.runPages[run++]!;
    this.firstRun[part] = run;
    this.skip[part] = skip;
    this.pages[part] = pages;
  }
}
