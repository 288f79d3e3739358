/**
 * Huge pages for a store's memory. Random reads of a large store are misses of the TLB, and filling
 * it is a fault for every 4 KiB; a huge page is one of each for 2 MiB. The kernel gives memory
 * files no huge pages by itself on most machines, but MADV_COLLAPSE makes them of a block that has
 * one page: 0.1 ms for 2 MiB, where 512 faults take 1.3 ms.
 *
 * Each thread asks once for each block, just before it first uses pages there; that a block is huge
 * already is no harm.
 */
import { MADV_COLLAPSE, MADV_POPULATE_WRITE, tryAdvise } from "../../ffi/index.ts";
import type { Mapping } from "../memory/mapping.ts";
import { HUGE_PAGE_SIZE, PAGE_SIZE } from "../pages/units.ts";

/** After so many refusals in a row the kernel is not asked any more. */
const MAX_REFUSALS = 8;

export class HugePages {
  private readonly mapping: Mapping;
  private readonly asked = new Set<number>();
  private refusals = 0;

  constructor(mapping: Mapping) {
    this.mapping = mapping;
  }

  /**
   * Pages [start, end) of a window are about to be used; `limit` is the window's end. Bytes of the
   * file.
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

  /** The block's memory went back to the kernel: it is asked for again. */
  forget(start: number, end: number): void {
    const first = Math.floor(start / HUGE_PAGE_SIZE);
    for (let block = first; block * HUGE_PAGE_SIZE < end; block++) this.asked.delete(block);
  }
}
