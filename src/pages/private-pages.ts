/**
 * Pages of a file that are private mappings of page files: which the kernel shares with the page
 * cache, and which it has copied because they were written. 6 ms a GiB.
 */
import { closeFile, openPagemap, privatePageOf, readPagemap } from "../../ffi/index.ts";
import { PAGE_SIZE } from "./units.ts";

/** What is needed of an overlay (memory/overlay.ts). */
export interface MappedPages {
  /** Address of page 0. */
  readonly base: number;
  /** Mapped pages. */
  readonly pages: number;
  /** The first page in [page, end) that is mapped (or is not), or `end`. */
  next(page: number, end: number, isMapped: boolean): number;
}

const WINDOW_PAGES = 16_384;
const ENTRY_BYTES = 8;

/** Reads the page map of this process for the files of one look. */
export class PrivatePages {
  private readonly fd = openPagemap();
  private readonly entries = new Int32Array(new SharedArrayBuffer(WINDOW_PAGES * ENTRY_BYTES));

  /**
   * Calls `visit` with runs of mapped pages of [start, end) and what they are (ffi: PrivatePage).
   * @throws {SyscallError}
   */
  visit(
    mapped: MappedPages,
    start: number,
    end: number,
    visit: (start: number, end: number, state: number) => void,
  ): void {
    for (let page = mapped.next(start, end, true); page < end; ) {
      const stop = Math.min(mapped.next(page, end, false), page + WINDOW_PAGES);
      readPagemap(this.fd, mapped.base + page * PAGE_SIZE, stop - page, this.entries);
      this.visitWindow(page, stop, visit);
      page = mapped.next(stop, end, true);
    }
  }

  private visitWindow(
    start: number,
    end: number,
    visit: (start: number, end: number, state: number) => void,
  ): void {
    let from = start;
    let state = privatePageOf(this.entries, 0);
    for (let page = start + 1; page < end; page++) {
      const next = privatePageOf(this.entries, page - start);
      if (next === state) continue;
      visit(from, page, state);
      from = page;
      state = next;
    }
    visit(from, end, state);
  }

  [Symbol.dispose](): void {
    closeFile(this.fd);
  }
}
