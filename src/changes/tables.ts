/**
 * The tables of written pages, which the threads of a file share: one anonymous mapping, whose
 * address is in the control block. The first save that tracks maps it, and it takes memory only
 * where it is touched.
 *
 *   header    words and counters
 *   marked    a bit for each page: written in a way that no tracker sees. Atomics.or by any thread;
 *             exchanged for 0 by the save that takes them.
 *   changed   a bit for each page: it may differ from the base. Only for the save that owns the
 *             tracker.
 *   lastTake  a byte for each unit: the low bits of the last take that reported it. As above.
 *   heat      a byte for each unit: how many takes in a row reported all of it, or SPLIT.
 */
import { bufferAt, detach, mapAnonymous, unmap } from "../../ffi/index.ts";
import { PAGES_PER_HUGE_PAGE } from "../pages/units.ts";

/** Indexes of 32-bit words of the header. */
export const TrackingWord = {
  /** Descriptors of the process, or -1 if hashes are compared. Set before the tables are shared. */
  Userfaultfd: 0,
  Pagemap: 1,
  /** Registered pages from the file's beginning. Owner. */
  RegisteredPages: 2,
  /** The thread word of the save that owns the tracker, or 0; compare-exchange. */
  Owner: 3,
  /** 1 while `changed` and the next take together have all differences from the base. Owner. */
  BaseKnown: 4,
  /** A hash of the base's name. Owner. */
  BaseLow: 5,
  BaseHigh: 6,
  /** 1 if there may be marks. Set after the bits; exchanged for 0 before they are taken. */
  HasMarks: 7,
  /** Takes so far, modulo 2^32. Owner. */
  Takes: 8,
} as const;

/** Indexes of 64-bit floats after the words: counters. Owner. */
export const TrackingCounter = {
  Takes: 32,
  ReportedPages: 33,
  MarkedPages: 34,
  SplitUnits: 35,
  JoinedUnits: 36,
  TakeMs: 37,
} as const;

const HEADER_BYTES = 4096;

/** Parts of the mapping, in bytes; `pages` is the file's capacity. */
function layout(pages: number) {
  const bitmapBytes = pages / 8;
  const unitBytes = Math.ceil(pages / PAGES_PER_HUGE_PAGE);
  const marked = HEADER_BYTES;
  const changed = marked + bitmapBytes;
  const lastTake = changed + bitmapBytes;
  const heat = lastTake + unitBytes;
  return { marked, changed, lastTake, heat, lengthBytes: heat + unitBytes };
}

/** One thread's views of the tables, as far as the file reaches. */
export class TrackingTables {
  readonly words: Int32Array;
  readonly counters: Float64Array;
  marked = new Int32Array(0);
  changed = new Int32Array(0);
  lastTake = new Uint8Array(0);
  heat = new Uint8Array(0);
  /** The pages that the views cover. */
  pages = 0;
  private readonly address: number;
  private readonly capacityPages: number;
  private readonly header: ArrayBuffer;
  private buffers: ArrayBuffer[] = [];

  constructor(address: number, capacityPages: number) {
    this.address = address;
    this.capacityPages = capacityPages;
    this.header = bufferAt(address, HEADER_BYTES);
    this.words = new Int32Array(this.header);
    this.counters = new Float64Array(this.header);
  }

  /** Maps tables for a file of that capacity, all zeros. @throws {SyscallError} */
  static map(capacityPages: number): number {
    return mapAnonymous(layout(capacityPages).lengthBytes);
  }

  /** Makes the views cover `pages`, the file's size. */
  cover(pages: number): void {
    if (pages <= this.pages) return;
    this.detachColumns();
    const at = layout(this.capacityPages);
    const units = Math.ceil(pages / PAGES_PER_HUGE_PAGE);
    this.marked = new Int32Array(this.view(at.marked, pages / 8));
    this.changed = new Int32Array(this.view(at.changed, pages / 8));
    this.lastTake = new Uint8Array(this.view(at.lastTake, units));
    this.heat = new Uint8Array(this.view(at.heat, units));
    this.pages = pages;
  }

  private view(offset: number, lengthBytes: number): ArrayBuffer {
    const buffer = bufferAt(this.address + offset, lengthBytes);
    this.buffers.push(buffer);
    return buffer;
  }

  private detachColumns(): void {
    for (const buffer of this.buffers) detach(buffer);
    this.buffers = [];
  }

  /** This thread does not read the tables any more. */
  detach(): void {
    this.detachColumns();
    detach(this.header);
    this.pages = 0;
  }

  static unmap(address: number, capacityPages: number): void {
    unmap(address, layout(capacityPages).lengthBytes);
  }
}
