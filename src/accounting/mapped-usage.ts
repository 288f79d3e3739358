/**
 * Memory of pages that are mapped from page files: clean pages, which the page cache shares with
 * other processes, and private copies of pages that were written.
 *
 * /proc/self/pagemap distinguishes them (proc(5)): in a private mapping, a page of the file is
 * clean, and any other page that is present or swapped out is a copy. Takes 18 ms for 1 GiB.
 */
import { addressOf, closeFile, openPagemap, readAt, SyscallError } from "../../ffi/index.ts";
import { PAGE_SIZE } from "../pages/units.ts";

/** The part of an overlay (memory/overlay.ts) that is read here. */
export interface MappedPages {
  /** Address of page 0. */
  readonly base: number;
  readonly pages: number;
  next(page: number, end: number, isMapped: boolean): number;
}

/** Memory of mapped pages. */
export interface MappedUsage {
  /** Pages of the page cache that this process has mapped and not written. */
  readonly cleanMappedBytes: number;
  /** Copies of pages that were written, in memory or swapped out. */
  readonly privateBytes: number;
}

/** The upper half of an entry of /proc/self/pagemap. */
const PRESENT = 1 << 31;
const SWAPPED = 1 << 30;
const OF_FILE = 1 << 29;
const ENTRY_BYTES = 8;
const WINDOW_PAGES = 16_384;

/**
 * @param sizePages pages of the file
 * @throws {SyscallError}
 */
export function usageOfMapped(overlay: MappedPages | null, sizePages: number): MappedUsage {
  if (overlay === null || overlay.pages === 0) return { cleanMappedBytes: 0, privateBytes: 0 };
  const window = new Int32Array(new SharedArrayBuffer(WINDOW_PAGES * ENTRY_BYTES));
  const fd = openPagemap();
  let clean = 0;
  let copies = 0;
  try {
    for (let page = overlay.next(0, sizePages, true); page < sizePages; ) {
      const end = Math.min(overlay.next(page, sizePages, false), page + WINDOW_PAGES);
      readEntries(fd, overlay.base / PAGE_SIZE + page, end - page, window);
      for (let i = 1; i < 2 * (end - page); i += 2) {
        const entry = window[i]!;
        if ((entry & OF_FILE) !== 0 && (entry & PRESENT) !== 0) clean++;
        else if ((entry & (PRESENT | SWAPPED)) !== 0) copies++;
      }
      page = overlay.next(end, sizePages, true);
    }
  } finally {
    closeFile(fd);
  }
  return { cleanMappedBytes: clean * PAGE_SIZE, privateBytes: copies * PAGE_SIZE };
}

function readEntries(fd: number, first: number, count: number, window: Int32Array): void {
  const lengthBytes = count * ENTRY_BYTES;
  const result = readAt(fd, addressOf(window), lengthBytes, first * ENTRY_BYTES);
  if (result !== lengthBytes) throw new SyscallError("pread", -Math.min(-1, result));
}
