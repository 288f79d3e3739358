/**
 * Mapped restore: lays private mappings of page files over a file's memory, instead of copying.
 *
 * Only raw contents of local files can be mapped. Each piece, pages that follow one another in
 * memory and in a page file, is one mapping, and the kernel allows a process 65,530 by default. If
 * there are more than the file may map, the smallest ones are copied.
 */
import { SyscallError } from "../../ffi/index.ts";
import { CodecId } from "../codec/codec.ts";
import type { PageMap } from "../checkpoint/page-map.ts";
import type { LoadState } from "../load/load-state.ts";
import type { Overlay } from "../memory/overlay.ts";
import { PAGE_SIZE } from "../pages/units.ts";
import type { PageSource } from "../source/description.ts";
import { canMap, mapContent } from "../source/describe.ts";
import type { PageRun } from "./changed-pages.ts";

/** Up to this many pieces are mapped at any size. */
const FEW_PIECES = 1024;
/** Pieces of so many pages or more are large. Mapping a smaller one saves no time. */
const LARGE_PAGES = 16;
/** Half of the budget, because a piece makes two mappings: returning pages splits more. */
const SHARE_AT_FIRST = 1 / 4;

/** Extents [extent, extentEnd) are pages [start, end), and bytes of a content from `offset` on. */
interface Piece {
  readonly extent: number;
  readonly extentEnd: number;
  readonly start: number;
  readonly end: number;
  readonly content: number;
  readonly offset: number;
}

/**
 * Maps as much as possible and records it in the load, which must not have begun. With `verify` the
 * load still checks the pages, except those in `checked`. Without it they are loaded at once.
 */
export function mapPages(
  state: LoadState,
  overlay: Overlay,
  verify: boolean,
  checked: readonly PageRun[],
): void {
  mapPieces(state, overlay, verify);
  if (!verify) return;
  for (const { start, length } of checked) {
    const end = start + length;
    for (let page = overlay.next(start, end, true); page < end; ) {
      const stop = overlay.next(page, end, false);
      state.skip(page, stop);
      page = overlay.next(stop, end, true);
    }
  }
}

function mapPieces(state: LoadState, overlay: Overlay, verify: boolean): void {
  const { source, map, mappedExtents } = state.handle;
  if (!verify) overlay.noteUnchecked();
  for (const piece of choosePieces(source, map, overlay)) {
    try {
      const { content, offset } = piece;
      const lengthBytes = (piece.end - piece.start) * PAGE_SIZE;
      overlay.map(piece.start, piece.end, (address) =>
        mapContent(source, { content, offset, lengthBytes }, address),
      );
    } catch (error) {
      // Too many mappings, or a file system without them: the remaining pages are copied.
      if (error instanceof SyscallError) return;
      throw error;
    }
    mappedExtents.fill(1, piece.extent, piece.extentEnd);
    if (!verify) state.skip(piece.start, piece.end);
  }
}

/**
 * All pieces if they are few. Otherwise the large ones, and of the others the sizes whose pieces
 * may all be mapped, largest first, if half of the contents are mapped then: that saves memory, and
 * the next refresh need not read them.
 */
function choosePieces(source: PageSource, map: PageMap, overlay: Overlay): readonly Piece[] {
  const found = findPieces(source, map, new PieceBounds(LARGE_PAGES, FEW_PIECES));
  if (found.total <= 1) return listPieces(map, found);
  const most = Math.floor(SHARE_AT_FIRST * overlay.piecesMax);
  if (found.total <= Math.min(FEW_PIECES, most)) return listPieces(map, found);
  const pages = smallestPages(found, most);
  if (pages < LARGE_PAGES)
    return listPieces(map, findPieces(source, map, new PieceBounds(pages, 0)));
  const large = listPieces(map, found).filter(({ start, end }) => end - start >= LARGE_PAGES);
  if (large.length <= most) return large;
  return large.sort((a, b) => b.end - b.start - (a.end - a.start)).slice(0, most);
}

/**
 * The size from which on there are at most `most` pieces, if they have half of all pages; else
 * LARGE_PAGES.
 */
function smallestPages({ counts, pages: allPages }: PieceBounds, most: number): number {
  let pages = LARGE_PAGES;
  let count = counts[LARGE_PAGES]!;
  while (pages > 1 && count + counts[pages - 1]! <= most) count += counts[--pages]!;
  let copied = 0;
  for (let size = 1; size < pages; size++) copied += size * counts[size]!;
  return 2 * copied <= allPages ? pages : LARGE_PAGES;
}

function listPieces(map: PageMap, { bounds }: PieceBounds): Piece[] {
  const { start, length, frame, framePage } = map.extents;
  const { content, offset } = map.frames;
  const pieces: Piece[] = [];
  for (let i = 0; i < bounds.length; i += 2) {
    const extent = bounds[i]!;
    const extentEnd = bounds[i + 1]!;
    const row = frame[extent]!;
    pieces.push({
      extent,
      extentEnd,
      start: start[extent]!,
      end: start[extentEnd - 1]! + length[extentEnd - 1]!,
      content: content[row]!,
      offset: offset[row]! + framePage[extent]! * PAGE_SIZE,
    });
  }
  return pieces;
}

/** Pieces that were found, as bounds of extents. */
class PieceBounds {
  /** The first extent of each piece, and the end of its extents. */
  readonly bounds: number[] = [];
  /** All pieces by size; the last one counts the large ones. */
  readonly counts: number[] = new Array<number>(LARGE_PAGES + 1).fill(0);
  total = 0;
  /** Of all pieces. */
  pages = 0;
  private readonly pagesMin: number;
  private readonly few: number;

  /** Keeps the bounds of pieces of `pagesMin` pages or more, and of the first `few` others. */
  constructor(pagesMin: number, few: number) {
    this.pagesMin = pagesMin;
    this.few = few;
  }

  add(extent: number, extentEnd: number, pages: number): void {
    this.counts[Math.min(LARGE_PAGES, pages)]!++;
    this.pages += pages;
    this.total++;
    if (pages >= this.pagesMin || this.bounds.length < 2 * this.few)
      this.bounds.push(extent, extentEnd);
  }
}

/**
 * Adds all pieces to `found`.
 *
 * In a fresh process this loop runs interpreted, so an extent takes few steps. An object for each
 * of 131,072 pieces takes 10 ms.
 */
function findPieces(source: PageSource, { extents, frames }: PageMap, found: PieceBounds) {
  const { start: starts, length: lengths, frame: rows, framePage } = extents;
  const { content: contents, codec: codecs, offset: offsets } = frames;
  // The first extent of the current piece, and its pages; -1: none.
  let first = -1;
  let firstPage = 0;
  // The page and the offset at which an extent continues the piece; offset -1: none does.
  let nextPage = 0;
  let nextOffset = -1;
  let content = -1;
  let isMappable = false;
  for (let extent = 0; extent < starts.length; extent++) {
    const row = rows[extent]!;
    if (contents[row] !== content) {
      content = contents[row]!;
      isMappable = canMap(source, content);
      nextOffset = -1;
    }
    const offset = offsets[row]! + framePage[extent]! * PAGE_SIZE;
    const start = starts[extent]!;
    const isMapped = isMappable && codecs[row] === CodecId.Raw;
    if (!isMapped || offset !== nextOffset || start !== nextPage) {
      if (first >= 0) found.add(first, extent, nextPage - firstPage);
      first = isMapped && offset % PAGE_SIZE === 0 ? extent : -1;
      firstPage = start;
    }
    nextPage = start + lengths[extent]!;
    nextOffset = first < 0 ? -1 : offset + (nextPage - start) * PAGE_SIZE;
  }
  if (first >= 0) found.add(first, starts.length, nextPage - firstPage);
  return found;
}
