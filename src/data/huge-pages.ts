/**
 * Huge pages for a store's memory. A random read of a large store misses the TLB, and each new 4
 * KiB is a page fault; with huge pages both happen once for 2 MiB. Most kernels give memory files
 * no huge pages unasked, but MADV_COLLAPSE makes one of a block that has a page: 0.1 ms for 2 MiB,
 * where 512 faults take 1.3 ms.
 *
 * Each thread asks once for each block, just before it first uses pages there. To ask for a block
 * that is huge already does no harm.
 */
import { MADV_COLLAPSE, MADV_POPULATE_WRITE, tryAdvise } from "../../ffi/index.ts";
import type { Mapping } from "../memory/mapping.ts";
import { HUGE_PAGE_SIZE, PAGE_SIZE } from "../pages/units.ts";

/** After this many refusals in a row a thread no longer asks. */
const MAX_REFUSALS = 8;

export class HugePages {
  private readonly mapping: Mapping;
  private readonly asked = new Set<number>();
  private refusals = 0;

  constructor(mapping: Mapping) {
    this.mapping = mapping;
  }

  /**
   * Call before pages [start, end) of a window are used; `limit` is the window's end. All three are
   * bytes of the file.
   */
  prepare(windowStart: number, start: number, end: number, limit: number): void {
    if (this.refusals >= MAX_REFUSALS || limit - windowStart < HUGE_PAGE_SIZE) return;
    const first = Math.floor(start / HUGE_PAGE_SIZE);
    for (let block = first; block * HUGE_PAGE_SIZE < end; block++) {
      const at = block * HUGE_PAGE_SIZE;
      if (at < windowStart || at + HUGE_PAGE_SIZE > limit || this.asked.has(block)) continue;
      this.asked.add(block);
      const address = this.mapping.base + at;
      const isHuge =
        tryAdvise(address, PAGE_SIZE, MADV_POPULATE_WRITE) === 0 &&
        tryAdvise(address, HUGE_PAGE_SIZE, MADV_COLLAPSE) === 0;
      this.refusals = isHuge ? 0 : this.refusals + 1;
    }
  }

  /** Call when the block's memory is given back to the kernel: its next use asks again. */
  forget(start: number, end: number): void {
    const first = Math.floor(start / HUGE_PAGE_SIZE);
    for (let block = first; block * HUGE_PAGE_SIZE < end; block++) this.asked.delete(block);
  }
}
