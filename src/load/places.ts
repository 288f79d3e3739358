/** Places: where the contents of a unit's pages are, by the page map. */
import { CodecId } from "../codec/codec.ts";
import type { PageMap } from "../checkpoint/page-map.ts";
import { PAGE_SIZE } from "../pages/units.ts";
import { type LoadTables, LoadWord, PAGES_PER_UNIT } from "./load-tables.ts";

/** Where one page's contents are, for messages. */
export interface PagePlace {
  readonly extent: number;
  readonly content: number;
  /** Of the page's bytes, or of the compressed frame that holds them. */
  readonly offset: number;
}

export class Places {
  private readonly map: PageMap;
  private readonly unitFirstExtent: Int32Array;
  private readonly unitFirstRank: Int32Array;
  private readonly hasFrames: boolean;

  constructor(map: PageMap, tables: LoadTables) {
    this.map = map;
    this.unitFirstExtent = tables.unitFirstExtent;
    this.unitFirstRank = tables.unitFirstRank;
    this.hasFrames = tables.words[LoadWord.HasFrames] !== 0;
  }

  get frames(): PageMap["frames"] {
    return this.map.frames;
  }

  /** True if all raw contents begin at multiples of the page size: O_DIRECT asks for that. */
  isPageAligned(): boolean {
    const { codec, offset } = this.map.frames;
    return offset.every((at, frame) => codec[frame] !== CodecId.Raw || at % PAGE_SIZE === 0);
  }

  /** Precondition: the page has contents. */
  placeOf(page: number): PagePlace {
    const { start, length, frame, framePage } = this.map.extents;
    let extent = this.unitFirstExtent[Math.floor(page / PAGES_PER_UNIT)]!;
    while (start[extent]! + length[extent]! <= page) extent++;
    const row = frame[extent]!;
    const { codec, content, offset } = this.map.frames;
    const skipped = framePage[extent]! + page - start[extent]!;
    const isRaw = codec[row] === CodecId.Raw;
    return {
      extent,
      content: content[row]!,
      offset: offset[row]! + (isRaw ? skipped * PAGE_SIZE : 0),
    };
  }

  /** Calls `visit` for each piece of the pages in `want` (bits of the unit), in their order. */
  forEachPiece(
    unit: number,
    want: Int32Array,
    visit: (page: number, pages: number, rank: number, frame: number, framePage: number) => void,
  ): void {
    const { start: starts, length: lengths, frame, framePage } = this.map.extents;
    const first = unit * PAGES_PER_UNIT;
    const end = first + PAGES_PER_UNIT;
    let rank = this.unitFirstRank[unit]!;
    let extent = this.unitFirstExtent[unit]!;
    if (extent < 0) return;
    for (; extent < starts.length; rank += lengths[extent++]!) {
      const start = starts[extent]!;
      if (start >= end) return;
      const stop = Math.min(end, start + lengths[extent]!);
      for (let page = Math.max(first, start); page < stop; ) {
        const from = nextBit(want, page - first, stop - first, true);
        const to = nextBit(want, from, stop - first, false);
        const skipped = first + from - start;
        if (to > from) {
          visit(
            first + from,
            to - from,
            rank + skipped,
            frame[extent]!,
            framePage[extent]! + skipped,
          );
        }
        page = first + to;
      }
    }
  }

  /**
   * Adds to `want` all pages of compressed frames of which it has some: a frame is decoded as a
   * whole, so the other pages cost nothing more.
   */
  extendToFrames(unit: number, want: Int32Array): void {
    if (!this.hasFrames) return;
    const touched = new Set<number>();
    this.forEachPiece(unit, want, (_page, _pages, _rank, frame) => {
      if (this.map.frames.codec[frame] !== CodecId.Raw) touched.add(frame);
    });
    if (touched.size === 0) return;
    this.forEachPiece(unit, EVERY_PAGE, (page, pages, _rank, frame) => {
      if (!touched.has(frame)) return;
      for (let bit = page % PAGES_PER_UNIT, end = bit + pages; bit < end; bit++)
        want[bit >>> 5]! |= 1 << (bit & 31);
    });
  }
}

const EVERY_PAGE = new Int32Array(PAGES_PER_UNIT / 32).fill(-1);

/** The first index in [from, end) whose bit is set (or clear), or `end`. */
function nextBit(bits: Int32Array, from: number, end: number, set: boolean): number {
  let index = from;
  while (index < end) {
    const word = (set ? bits[index >>> 5]! : ~bits[index >>> 5]!) >>> (index & 31);
    if (word !== 0) return Math.min(end, index + 31 - Math.clz32(word & -word));
    index = (index | 31) + 1;
  }
  return end;
}
