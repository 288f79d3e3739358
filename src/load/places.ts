/** Places: where the contents of a unit's pages are, from the page map. */
import { CodecId } from "../codec/codec.ts";
import type { PageMap } from "../checkpoint/page-map.ts";
import { PAGE_SIZE } from "../pages/units.ts";
import { type LoadTables, LoadWord, PAGES_PER_UNIT } from "./load-tables.ts";

/** The place of one page's contents, for messages. */
export interface PagePlace {
  readonly extent: number;
  readonly content: number;
  /** Offset of the page's bytes, or of the compressed frame that contains them. */
  readonly offset: number;
}

/** The pieces of a unit: pages whose contents follow one another in a frame, one row each. */
export class UnitPieces {
  readonly page = new Uint32Array(PAGES_PER_UNIT);
  readonly pages = new Uint32Array(PAGES_PER_UNIT);
  readonly rank = new Uint32Array(PAGES_PER_UNIT);
  readonly frame = new Uint32Array(PAGES_PER_UNIT);
  /** 1 if the pages are mapped. */
  readonly isMapped = new Uint8Array(PAGES_PER_UNIT);
  /** Page of the decoded frame at which the piece's contents begin. */
  readonly framePage = new Uint32Array(PAGES_PER_UNIT);
}

export class Places {
  private readonly map: PageMap;
  private readonly mappedExtents: Uint8Array;
  private readonly unitFirstExtent: Int32Array;
  private readonly unitFirstRank: Int32Array;
  private readonly hasFrames: boolean;
  private readonly pieces = new UnitPieces();

  constructor(map: PageMap, tables: LoadTables, mappedExtents: Uint8Array) {
    this.mappedExtents = mappedExtents;
    this.map = map;
    this.unitFirstExtent = tables.unitFirstExtent;
    this.unitFirstRank = tables.unitFirstRank;
    this.hasFrames = tables.words[LoadWord.HasFrames] !== 0;
  }

  get frames(): PageMap["frames"] {
    return this.map.frames;
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

  /**
   * Lists the pieces of the pages in `want` (bits of the unit), in their order. Returns how many.
   * One flat loop: in a fresh thread it runs interpreted, where a call for each piece costs more
   * than all the work.
   */
  listPieces(unit: number, want: Int32Array, pieces: UnitPieces): number {
    const { start: starts, length: lengths, frame, framePage } = this.map.extents;
    const first = unit * PAGES_PER_UNIT;
    const end = first + PAGES_PER_UNIT;
    let count = 0;
    let rank = this.unitFirstRank[unit]!;
    let extent = this.unitFirstExtent[unit]!;
    if (extent < 0) return 0;
    for (; extent < starts.length && starts[extent]! < end; rank += lengths[extent++]!) {
      const start = starts[extent]!;
      const stop = Math.min(end, start + lengths[extent]!) - first;
      for (let at = Math.max(first, start) - first; at < stop; ) {
        const from = nextBit(want, at, stop, true);
        at = nextBit(want, from, stop, false);
        if (at === from) break;
        const skipped = first + from - start;
        pieces.page[count] = first + from;
        pieces.pages[count] = at - from;
        pieces.rank[count] = rank + skipped;
        pieces.isMapped[count] = this.mappedExtents[extent] ?? 0;
        pieces.frame[count] = frame[extent]!;
        pieces.framePage[count++] = framePage[extent]! + skipped;
      }
    }
    return count;
  }

  /**
   * Adds to `want` all pages of compressed frames of which it has some: a frame is decoded as a
   * whole, so the other pages cost nothing more.
   */
  extendToFrames(unit: number, want: Int32Array): void {
    if (!this.hasFrames) return;
    const { codec } = this.map.frames;
    const touched = new Set<number>();
    const { pieces } = this;
    for (let i = this.listPieces(unit, want, pieces) - 1; i >= 0; i--)
      if (codec[pieces.frame[i]!] !== CodecId.Raw) touched.add(pieces.frame[i]!);
    if (touched.size === 0) return;
    for (let i = this.listPieces(unit, EVERY_PAGE, pieces) - 1; i >= 0; i--) {
      if (!touched.has(pieces.frame[i]!)) continue;
      const first = pieces.page[i]! % PAGES_PER_UNIT;
      for (let bit = first; bit < first + pieces.pages[i]!; bit++)
        want[bit >>> 5]! |= 1 << (bit & 31);
    }
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
