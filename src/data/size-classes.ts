/**
 * Size classes of blocks: multiples of 16 up to 128 bytes, then eight for each doubling up to 32
 * KiB. A block wastes at most 12.5 % (6 % on average). A larger block is a run of pages, with the
 * same bound.
 */
import { STORE_PAGE } from "./layout.ts";

export const MAX_SMALL_BYTES = 32 * 1024;
export const CLASS_COUNT = 72;
const MIN_SPAN_PAGES = 4;
const MAX_SPAN_PAGES = 32;
/** The most that a span may waste after its last block. */
const MAX_TAIL = 1 / 32;

/** The class of the smallest blocks with room for `bytes`, which are 1 to MAX_SMALL_BYTES. */
export const classOf = (bytes: number): number => {
  if (bytes <= 128) return (bytes - 1) >> 4;
  const exponent = 31 - Math.clz32(bytes - 1);
  return 8 * (exponent - 7) + ((bytes - 1) >> (exponent - 3));
};

function sizeOf(sizeClass: number): number {
  if (sizeClass < 8) return 16 * (sizeClass + 1);
  const exponent = 7 + ((sizeClass - 8) >> 3);
  return (9 + ((sizeClass - 8) & 7)) << (exponent - 3);
}

function spanPagesOf(bytes: number): number {
  for (let pages = MIN_SPAN_PAGES; pages < MAX_SPAN_PAGES; pages++) {
    const spanBytes = pages * STORE_PAGE;
    if (spanBytes >= bytes && (spanBytes % bytes) / spanBytes <= MAX_TAIL) return pages;
  }
  return MAX_SPAN_PAGES;
}

/** Bytes of a block, pages of a span and blocks in it, by class. */
export const CLASS_BYTES = Int32Array.from({ length: CLASS_COUNT }, (_, i) => sizeOf(i));
export const SPAN_PAGES = CLASS_BYTES.map(spanPagesOf);
export const SPAN_BLOCKS = CLASS_BYTES.map((bytes, i) =>
  Math.floor((SPAN_PAGES[i]! * STORE_PAGE) / bytes),
);
