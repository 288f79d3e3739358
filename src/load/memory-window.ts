/**
 * MemoryWindow: a buffer over the stretch of memory that was used last. Another stretch gets a new
 * buffer.
 *
 * The collector counts a new buffer's bytes as future garbage, and runs after some 6 MB of it: with
 * a buffer for each 2 MiB that is read, after every third. So a reader that passes over memory
 * takes large stretches, and one that checks single pages takes only those.
 */
import { bufferAt, detach } from "../../ffi/index.ts";
import { PAGE_SIZE } from "../pages/units.ts";

export class MemoryWindow {
  private readonly base: number;
  private readonly sizePages: number;
  private readonly alignPages: number;
  private buffer: ArrayBuffer | undefined;
  private start = 0;
  private end = 0;

  /** Over pages [0, sizePages) at `base`. Stretches begin and end at multiples of `alignPages`. */
  constructor(base: number, sizePages: number, alignPages: number) {
    this.base = base;
    this.sizePages = sizePages;
    this.alignPages = alignPages;
  }

  /** Makes `pages` valid for [start, end), a range of the memory. */
  cover(start: number, end: number): void {
    if (start >= this.start && end <= this.end) return;
    this.close();
    const { alignPages } = this;
    this.start = start - (start % alignPages);
    this.end = Math.min(Math.ceil(end / alignPages) * alignPages, this.sizePages);
    this.buffer = bufferAt(this.base + this.start * PAGE_SIZE, (this.end - this.start) * PAGE_SIZE);
  }

  /** The bytes of pages [start, start + count). Valid until the next `cover` or `close`. */
  pages(start: number, count: number): Uint8Array {
    return new Uint8Array(this.buffer!, (start - this.start) * PAGE_SIZE, count * PAGE_SIZE);
  }

  /** Must be called before the memory is unmapped. */
  close(): void {
    if (this.buffer !== undefined) detach(this.buffer);
    this.buffer = undefined;
    this.start = this.end = 0;
  }
}
