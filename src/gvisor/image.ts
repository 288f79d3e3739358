/**
 * The contents of a checkpoint, independent of gVisor's encoding: columns of page runs, and of the
 * places of page contents.
 *
 * gVisor keeps four interval sets that also contain absent pages (the void, and the chunks of the
 * other page size). An image has only the pages that are not free. validate.ts makes an image from
 * untrusted metadata, compose.ts makes metadata from an image.
 *
 * Pages are indexes of 4 KiB pages. gVisor's format has the page size of the machine that wrote it,
 * and does not state it.
 */

/** Bytes of a page in the format. */
export const PAGE_BYTES = 4096;
/** Pages of a huge page. */
export const HUGE_PAGES = 512;
/** Pages of a chunk. */
export const CHUNK_PAGES = 2 ** 18;
/** 8 TiB: a page index and the end of a run fit in 32 bits. */
export const CHUNKS_MAX = 2 ** 13;
/** The most references that the allocator counts; gVisor's counts have 64 bits. */
export const REFS_MAX = 2 ** 31 - 1;
/** A kind is a byte here and a u32 in gVisor's format. */
export const KIND_MAX = 255;
/** The last kind that gVisor knows (Mapped). Its accounting panics at a larger one. */
export const GVISOR_KIND_MAX = 5;

/** State of a run. Pages in no run are free. */
export const RunState = {
  /**
   * No references, contents unknown, accounted to System. gVisor's SaveTo waits until no page is in
   * this state.
   */
  waste: 1,
  /** Has references. */
  used: 2,
  /**
   * Released, but part of a huge page that is still in use: decommitted, and free once the rest is.
   */
  subReleased: 4,
} as const;

/**
 * Runs of pages that are not free: ordered, disjoint, maximal. Each is within chunks of one page
 * size.
 */
export interface ImageRuns {
  readonly start: Uint32Array;
  readonly length: Uint32Array;
  /** `RunState` */
  readonly state: Uint8Array;
  /** References on each page; 0 unless used. */
  readonly refs: Uint32Array;
  readonly kind: Uint8Array;
  readonly group: Uint32Array;
}

/**
 * Pages whose contents are in the checkpoint, ordered and disjoint. Other pages of the runs are
 * zero.
 */
export interface ImageExtents {
  readonly start: Uint32Array;
  readonly length: Uint32Array;
  /**
   * Byte offset of the first page's contents in the file that has them. Not aligned in the form
   * without a pages file.
   */
  readonly fileOffset: Float64Array;
}

export interface MemoryFileImage {
  /** One per 1 GiB chunk: 1 = huge pages. */
  readonly chunkHuge: Uint8Array;
  readonly runs: ImageRuns;
  readonly extents: ImageExtents;
}

/**
 * Pages whose contents the metadata announces, in the order of the file, before their places are
 * known.
 */
export interface CommittedPages {
  readonly start: Uint32Array;
  readonly length: Uint32Array;
}

/** Calls `visit` for each longest row of chunks with the same page size, with page indexes. */
export function forEachChunkGroup(
  chunkHuge: Uint8Array,
  visit: (group: { readonly start: number; readonly end: number; readonly huge: boolean }) => void,
): void {
  for (let first = 0, chunk = 1; first < chunkHuge.length; chunk++) {
    if (chunk < chunkHuge.length && chunkHuge[chunk] === chunkHuge[first]) continue;
    visit({ start: first * CHUNK_PAGES, end: chunk * CHUNK_PAGES, huge: chunkHuge[first] === 1 });
    first = chunk;
  }
}
