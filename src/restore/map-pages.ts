/**
 * Mapped restore: lays private mappings of page files over a file's memory, instead of copying.
 *
 * Only raw contents of local files can be mapped. Each piece, pages that follow one another in
 * memory and in a page file, is one mapping, and the kernel allows a process 65,530 by default. If
 * there are many pieces, small ones are copied, and the largest of the others are mapped.
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
/** Mapping a smaller piece takes about as long as copying it. */
const PIECE_PAGES_MIN = 16;
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

function choosePieces(source: PageSource, map: PageMap, overlay: Overlay): readonly Piece[] {
  const pieces = listPieces(source, map);
  if (pieces.length === 1) return pieces;
  const most = Math.floor(SHARE_AT_FIRST * overlay.piecesMax);
  if (pieces.length <= Math.min(FEW_PIECES, most)) return pieces;
  const large = pieces.filter(({ start, end }) => end - start >= PIECE_PAGES_MIN);
  if (large.length <= most) return large;
  return large.sort((a, b) => b.end - b.start - (a.end - a.start)).slice(0, most);
}

/** All pieces if they are few; otherwise the first ones, and all later ones that are large. */
function listPieces(source: PageSource, map: PageMap): Piece[] {
  const { start, length, frame, framePage } = map.extents;
  const { content, offset } = map.frames;
  const bounds = findPieces(source, map);
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

/**
 * The first extent of each piece, and the end of its extents.
 *
 * In a fresh process this loop runs interpreted, so an extent takes few steps. An object for each
 * of 131,072 pieces takes 10 ms.
 */
function findPieces(source: PageSource, { extents, frames }: PageMap): number[] {
  const { start: starts, length: lengths, frame: rows, framePage } = extents;
  const { content: contents, codec: codecs, offset: offsets } = frames;
  const bounds: number[] = [];
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
      const isLarge = nextPage - firstPage >= PIECE_PAGES_MIN;
      if (first >= 0 && (isLarge || bounds.length <= 2 * FEW_PIECES)) bounds.push(first, extent);
      first = isMapped && offset % PAGE_SIZE === 0 ? extent : -1;
      firstPage = start;
    }
    nextPage = start + lengths[extent]!;
    nextOffset = first < 0 ? -1 : offset + (nextPage - start) * PAGE_SIZE;
  }
  if (first >= 0) bounds.push(first, starts.length);
  return bounds;
}
