/**
 * The save table: for every page of the MemoryFiles of a save, the place where its contents are
 * stored, its checksum and its hash. Shared columns, indexed by page. Writing threads enter the
 * pages that they store. A later copy of a page replaces an earlier one. If a save builds on a
 * base, the table begins with the base's pages.
 *
 * One thread at a time writes the pages of a unit. Memory that is not touched costs nothing, so
 * columns are as long as the files.
 */

/** One MemoryFile's part of the table. postMessage can copy it. */
export interface TableHandle {
  /** u32: number of the frame plus 1; 0: the page has no stored contents. */
  readonly frame: SharedArrayBuffer;
  /** u16: page of the decoded frame. */
  readonly framePage: SharedArrayBuffer;
  /** u32: CRC-32 of the page. */
  readonly crc: SharedArrayBuffer;
  /** u64: xxHash3 of the page; null if the save's format has no hashes. */
  readonly hash: SharedArrayBuffer | null;
}

export interface FileTable {
  readonly handle: TableHandle;
  /** Pages that the columns cover. */
  readonly pages: number;
  readonly frame: Uint32Array;
  readonly framePage: Uint16Array;
  readonly crc: Uint32Array;
  /** Pairs of words, the low one first: reading a u64 makes a BigInt. */
  readonly hash: Uint32Array | null;
}

export function createTable(sizePages: number, hasHashes: boolean): FileTable {
  return openTable({
    frame: new SharedArrayBuffer(4 * sizePages),
    framePage: new SharedArrayBuffer(2 * sizePages),
    crc: new SharedArrayBuffer(4 * sizePages),
    hash: hasHashes ? new SharedArrayBuffer(8 * sizePages) : null,
  });
}

export function openTable(handle: TableHandle): FileTable {
  return {
    handle,
    pages: handle.frame.byteLength / 4,
    frame: new Uint32Array(handle.frame),
    framePage: new Uint16Array(handle.framePage),
    crc: new Uint32Array(handle.crc),
    hash: handle.hash === null ? null : new Uint32Array(handle.hash),
  };
}

/** The table itself if it covers `pages`, else a longer one with the same rows. */
export function coverPages(table: FileTable, pages: number): FileTable {
  if (pages <= table.pages) return table;
  const longer = createTable(pages, table.hash !== null);
  longer.frame.set(table.frame);
  longer.framePage.set(table.framePage);
  longer.crc.set(table.crc);
  if (table.hash !== null) longer.hash?.set(table.hash);
  return longer;
}

/** Columns of frames, one row each, in the order in which they were reserved. */
export interface FrameRows {
  readonly codec: Uint8Array;
  readonly pages: Uint16Array;
  readonly offset: Float64Array;
  readonly storedBytes: Float64Array;
}

/** The shared columns. postMessage can copy them. */
export interface FramesHandle {
  readonly codec: SharedArrayBuffer;
  readonly pages: SharedArrayBuffer;
  readonly offset: SharedArrayBuffer;
  readonly storedBytes: SharedArrayBuffer;
}

export function createFrames(capacity: number): FramesHandle {
  return {
    codec: new SharedArrayBuffer(capacity),
    pages: new SharedArrayBuffer(2 * capacity),
    offset: new SharedArrayBuffer(8 * capacity),
    storedBytes: new SharedArrayBuffer(8 * capacity),
  };
}

export function openFrames(handle: FramesHandle): FrameRows {
  return {
    codec: new Uint8Array(handle.codec),
    pages: new Uint16Array(handle.pages),
    offset: new Float64Array(handle.offset),
    storedBytes: new Float64Array(handle.storedBytes),
  };
}
