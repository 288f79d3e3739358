/**
 * Finds pages that have memory, with two system calls for an extent of data, however long it is.
 */
import { seekData, seekHole } from "../../ffi/index.ts";
import { PAGE_SIZE } from "../pages/units.ts";

/** Behind every page: no data follows. */
const NO_MORE = 2 ** 31 - 1;

export class DataFinder {
  /**
   * Pages [dataStart, dataEnd) have memory, and pages from the one last asked for to dataStart have
   * none.
   */
  dataStart = 0;
  dataEnd = 0;
  private fd = -1;
  private knownFrom = 0;

  /** The data at `page` or next after it. */
  find(fd: number, page: number): DataFinder {
    if (fd === this.fd && page >= this.knownFrom && page < this.dataEnd) return this;
    this.fd = fd;
    this.knownFrom = page;
    const offset = seekData(fd, page * PAGE_SIZE);
    // A hole may begin inside a page on a file system with smaller blocks. If the program has
    // decommitted the data since, both are the same, and the caller asks again behind it.
    this.dataStart = offset < 0 ? NO_MORE : Math.floor(offset / PAGE_SIZE);
    this.dataEnd = offset < 0 ? NO_MORE : Math.ceil(seekHole(fd, offset) / PAGE_SIZE);
    return this;
  }
}
