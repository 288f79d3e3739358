/**
 * Memory of pages that are mapped from page files: clean pages, which the page cache shares with
 * other processes, and private copies of pages that were written.
 */
import { PrivatePage } from "../../ffi/index.ts";
import { type MappedPages, PrivatePages } from "../pages/private-pages.ts";
import { PAGE_SIZE } from "../pages/units.ts";

/** Memory of mapped pages. */
export interface MappedUsage {
  /** Pages of the page cache that this process has mapped and not written. */
  readonly cleanMappedBytes: number;
  /** Copies of pages that were written, in memory or swapped out. */
  readonly privateBytes: number;
}

/** `sizePages`: of the file. @throws {SyscallError} */
export function usageOfMapped(overlay: MappedPages | null, sizePages: number): MappedUsage {
  if (overlay === null || overlay.pages === 0) return { cleanMappedBytes: 0, privateBytes: 0 };
  let clean = 0;
  let copies = 0;
  using pages = new PrivatePages();
  pages.visit(overlay, 0, sizePages, (start, end, state) => {
    if (state === PrivatePage.Clean) clean += end - start;
    if (state === PrivatePage.Copy) copies += end - start;
  });
  return { cleanMappedBytes: clean * PAGE_SIZE, privateBytes: copies * PAGE_SIZE };
}
