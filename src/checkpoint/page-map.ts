/**
 * PageMap: where the contents of a MemoryFile's pages are. A save makes one, the manifest stores
 * it, and a load follows it. gVisor's importer makes the same map.
 *
 * - A **content** is a byte sequence of a page source, named by an index: 0 is the manifest, 1 and
 *   up are page files.
 * - A **frame** is a run of bytes of one content that is read and decoded as a whole. A raw frame
 *   may also be read in parts. In the native format a frame never crosses a unit (2 MiB of memory),
 *   and begins at a multiple of PAGE_SIZE.
 * - An **extent** is a run of pages whose contents follow one another in one frame. A frame may
 *   have several extents. After an incremental save, only part of a frame may still be in use.
 *
 * Pages of extents are numbered in the order of the extents. That number is the page's **rank**:
 * its index in the checksum and hash columns.
 */

/** Runs of pages with contents: ordered by page, disjoint. One row each. */
export interface ExtentColumns {
  /** First page in the MemoryFile. */
  readonly start: Uint32Array;
  /** Pages; at least 1. */
  readonly length: Uint32Array;
  /** Row of FrameColumns. */
  readonly frame: Uint32Array;
  /** Page of the decoded frame at which the extent's contents begin. */
  readonly framePage: Uint32Array;
}

/** Frames, in any order. One row each. */
export interface FrameColumns {
  /** Index of a content of the source. */
  readonly content: Uint32Array;
  /** A CodecId (codec/codec.ts). */
  readonly codec: Uint32Array;
  /** Offset of the first byte in the content. */
  readonly offset: Float64Array;
  /** Stored bytes: `pages * PAGE_SIZE` for a raw frame, less for a compressed one. */
  readonly storedBytes: Float64Array;
  /** Pages of the decoded frame. */
  readonly pages: Uint32Array;
}

export interface PageMap {
  readonly extents: ExtentColumns;
  readonly frames: FrameColumns;
}

/**
 * A column of fixed-width values, one for each page in the order of ranks, that stays in the
 * manifest until it is needed. It is read in blocks of BLOCK_PAGES values, each with a CRC-32 of
 * its own.
 */
export interface ColumnPlace {
  /** Byte offset in content 0, the manifest. */
  readonly offset: number;
  /** Number of values. */
  readonly count: number;
  /** Bytes of a value: 4 (CRC-32 of a page) or 8 (xxHash3 of a page). */
  readonly widthBytes: 4 | 8;
  /** CRC-32 of each block's bytes. */
  readonly blockCrcs: Uint32Array;
}

/** Values of a block: 64 KiB of CRC-32s check 64 MiB of pages. */
export const BLOCK_PAGES = 16384;
