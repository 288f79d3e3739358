/**
 * ReadAhead: tells the kernel which mapped pages a thread will populate next, so that the disk has
 * more than one fault to serve.
 *
 * Faults in order make the kernel read ahead by itself, in folios of up to 2 MiB, if it reads far
 * enough ahead. MADV_WILLNEED reads as far as it is told, but in folios of 4 KiB: 1 GiB cold took
 * 1.6 s and 0.5 s of the processor with it and 0.9 to 1.2 s and 0.13 to 0.25 s without; hot, 0.25
 * s of the processor against 0.09 (Linux 6.18, ext4, read_ahead_kb 8192). So it is for devices that
 * read less than a unit ahead (Linux: 128 KiB by default), and for single pages, around which the
 * kernel would read as much.
 */
import { MADV_WILLNEED, tryAdvise } from "../../ffi/index.ts";
import { HUGE_PAGE_SIZE, PAGE_SIZE } from "../pages/units.ts";
import { mappedReadAhead } from "../source/describe.ts";
import type { PageSource } from "../source/description.ts";

/** How far ahead of its unit a thread tells the kernel to read. */
const AHEAD_BYTES = 3 * HUGE_PAGE_SIZE;
/** The first page file: those of a checkpoint are on one device. */
const CONTENT = 1;

export class ReadAhead {
  private readonly source: PageSource;
  private isByKernel: boolean | undefined;
  /** The end of the addresses that this thread has told the kernel. */
  private toldTo = 0;

  constructor(source: PageSource) {
    this.source = source;
  }

  /** Before a unit of the background pass. */
  beginUnit(address: number): void {
    this.isByKernel ??= mappedReadAhead(this.source, CONTENT) >= HUGE_PAGE_SIZE;
    if (this.isByKernel) return;
    const end = address + HUGE_PAGE_SIZE + AHEAD_BYTES;
    // The pass may have begun again.
    const from = this.toldTo > end ? address : Math.max(address, this.toldTo);
    this.toldTo = end;
    if (from < end) willNeed(from, end - from);
  }

  /** Before some pages of a unit, by their bits. */
  beginPages(address: number, want: Int32Array): void {
    let first = 0;
    while (want[first] === 0) first++;
    let last = want.length - 1;
    while (want[last] === 0) last--;
    const start = 32 * first + 31 - Math.clz32(want[first]! & -want[first]!);
    const end = 32 * last + 32 - Math.clz32(want[last]!);
    willNeed(address + start * PAGE_SIZE, (end - start) * PAGE_SIZE);
  }
}

/** Has the kernel begin to read mapped pages. A hint. */
export function willNeed(address: number, lengthBytes: number): void {
  tryAdvise(address, lengthBytes, MADV_WILLNEED);
}
