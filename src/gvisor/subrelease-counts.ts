/** Checks the metadata's counts of sub-released pages against the pages themselves. */
import type { CorruptCheckpointError } from "../errors/errors.ts";
import { HUGE_PAGES, PAGE_BYTES } from "./image.ts";
import type { SubreleasedColumns } from "./metadata.ts";

/** Compares the counts of `subreleased` with the pages that are sub-released. */
export class SubreleaseCounts {
  private readonly foundPages: Uint32Array;
  private next = 0;

  constructor(private readonly stated: SubreleasedColumns) {
    this.foundPages = new Uint32Array(stated.hugeStart.length);
  }

  /** Called with sub-released pages [start, end), in ascending order. */
  found(start: number, end: number): void {
    const { hugeStart } = this.stated;
    const hugeEnd = (index: number) => hugeStart[index]! / PAGE_BYTES + HUGE_PAGES;
    while (this.next < hugeStart.length && hugeEnd(this.next) <= start) this.next++;
    for (let i = this.next; i < hugeStart.length && hugeStart[i]! / PAGE_BYTES < end; i++) {
      this.foundPages[i]! +=
        Math.min(end, hugeEnd(i)) - Math.max(start, hugeStart[i]! / PAGE_BYTES);
    }
  }

  check(corrupt: (message: string) => CorruptCheckpointError): void {
    const { hugeStart, count } = this.stated;
    for (let i = 0; i < hugeStart.length; i++) {
      const pages = count[i]!;
      const what = `Huge page at ${hugeStart[i]} has a count of ${pages}`;
      if (hugeStart[i]! % (HUGE_PAGES * PAGE_BYTES) !== 0)
        throw corrupt(`${what}, but is not aligned to huge pages`);
      if (pages < 1 || pages >= HUGE_PAGES)
        throw corrupt(`${what}; it must be within [1, ${HUGE_PAGES})`);
      if (pages > this.foundPages[i]!)
        throw corrupt(`${what}, but only ${this.foundPages[i]} of its pages are sub-released`);
    }
  }
}
