/**
 * Finds pages that have memory. Where most of a file is looked at, two system calls find an extent
 * of data, however long it is. But SEEK_HOLE walks all pages of the extent, 30 ms for 2 GiB of
 * small pages, wherever it begins. So where few pages are looked at, each is asked for: 0.7 µs.
 */
import { fileStatus, seekData, seekHole } from "../../ffi/index.ts";
import type { Overlay } from "../memory/overlay.ts";
import { PAGE_SIZE } from "../pages/units.ts";

/** Behind every page: no data follows. */
const NO_MORE = 2 ** 31 - 1;
/** How many pages SEEK_HOLE passes in the time that it takes to ask for one. */
const PAGES_PER_PROBE = 12;

/** True if `pages` are so few of the file's that each is better asked for. */
export function areFew(fd: number, pages: number): boolean {
  return pages * PAGES_PER_PROBE < fileStatus(fd).allocatedBytes / PAGE_SIZE;
}

/** The memory of a file. */
export interface DataMemory {
  readonly fd: number;
  readonly overlay: Overlay | null;
}

export class DataFinder {
  /**
   * Pages [dataStart, dataEnd) have memory, and pages from the one last asked for to dataStart have
   * none.
   */
  dataStart = 0;
  dataEnd = 0;
  private memory: DataMemory | undefined;
  private knownFrom = 0;

  /** The data at `page` or next after it. `isOneOfFew`: see areFew. */
  find(memory: DataMemory, page: number, isOneOfFew: boolean): DataFinder {
    if (memory === this.memory && page >= this.knownFrom && page < this.dataEnd) return this;
    this.memory = memory;
    this.knownFrom = page;
    const { fd, overlay } = memory;
    if (overlay !== null) {
      const { start, end } = overlay.findData(page, NO_MORE);
      this.dataStart = start;
      this.dataEnd = end;
      return this;
    }
    const offset = seekData(fd, page * PAGE_SIZE);
    this.dataStart = offset < 0 ? NO_MORE : Math.floor(offset / PAGE_SIZE);
    if (offset < 0) this.dataEnd = NO_MORE;
    else if (isOneOfFew) this.dataEnd = this.dataStart + 1;
    // A hole may begin inside a page on a file system with smaller blocks. If the program has
    // decommitted the data since, both are the same, and the caller asks again behind it.
    else this.dataEnd = Math.ceil(seekHole(fd, offset) / PAGE_SIZE);
    return this;
  }
}

export function countPages(lengths: Uint32Array): number {
  let pages = 0;
  for (const length of lengths) pages += length;
  return pages;
}
