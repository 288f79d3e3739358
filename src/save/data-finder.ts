/**
 * Finds pages that have memory. If a save reads most of a file, two system calls find an extent of
 * data of any length. But SEEK_HOLE visits all pages of the extent, 30 ms for 2 GiB of small pages,
 * wherever it begins. So if a save reads few pages, it asks for each one: 0.7 µs. If it reads many,
 * one thread of a pass searches a long extent, and the others use its result (FullUnits).
 */
import { fileStatus, seekData, seekHole } from "../../ffi/index.ts";
import type { Overlay } from "../memory/overlay.ts";
import { PAGE_SIZE, PAGES_PER_HUGE_PAGE as PAGES_PER_UNIT } from "../pages/units.ts";

/** Behind every page: no data follows. */
const NO_MORE = 2 ** 31 - 1;
/** How many pages SEEK_HOLE passes in the time of asking for one. */
const PAGES_PER_PROBE = 12;

/** True if `pages` are so few that asking for each of them is faster. */
export function areFew(fd: number, pages: number): boolean {
  return pages * PAGES_PER_PROBE < fileStatus(fd).allocatedBytes / PAGE_SIZE;
}

/** The memory of a file. */
export interface DataMemory {
  readonly fd: number;
  readonly overlay: Overlay | null;
  /** Results of other threads in this pass; undefined if only one thread searches. */
  readonly fullUnits?: FullUnits;
}

/**
 * A thread that searches for an extent's end may have died. After this time, others search as well.
 */
const LOOK_WAIT_MS = 200;
/** The lock is before the units' bytes. */
const LOCK_BYTES = 4;

/**
 * Units whose pages are all known to have memory. A byte for each unit, set once, and a lock, so
 * that threads that begin together do not search the same extent.
 */
export class FullUnits {
  private readonly lock: Int32Array;
  private readonly isFull: Uint8Array;

  constructor(shared: SharedArrayBuffer) {
    this.lock = new Int32Array(shared, 0, 1);
    this.isFull = new Uint8Array(shared, LOCK_BYTES);
  }

  /** Shared memory for a file's units up to that of page `end`. */
  static create(end: number): SharedArrayBuffer {
    return new SharedArrayBuffer(LOCK_BYTES + 4 * Math.ceil(end / PAGES_PER_UNIT / 4));
  }

  has(unit: number): boolean {
    return Atomics.load(this.isFull, unit) === 1;
  }

  /** Records that pages [start, end) have memory. */
  note(start: number, end: number): void {
    const first = Math.ceil(start / PAGES_PER_UNIT);
    const last = Math.min(this.isFull.length, Math.floor(end / PAGES_PER_UNIT));
    for (let unit = first; unit < last; unit++) Atomics.store(this.isFull, unit, 1);
  }

  /** Calls `look` while no other thread does, unless `unit` is full by then. */
  lookUnlessFull(unit: number, look: () => void): void {
    const { lock } = this;
    let isMine = Atomics.compareExchange(lock, 0, 0, 1) === 0;
    if (!isMine) {
      Atomics.wait(lock, 0, 1, LOOK_WAIT_MS);
      isMine = Atomics.compareExchange(lock, 0, 0, 1) === 0;
    }
    try {
      if (!this.has(unit)) look();
    } finally {
      if (isMine) {
        Atomics.store(lock, 0, 0);
        Atomics.notify(lock, 0, 1);
      }
    }
  }
}

export class DataFinder {
  /**
   * Pages [dataStart, dataEnd) have memory. Pages from the one asked for last to dataStart have
   * none.
   */
  dataStart = 0;
  dataEnd = 0;
  private memory: DataMemory | undefined;
  private knownFrom = 0;

  /** The first data at or after `page`. `isOneOfFew`: see areFew. */
  find(memory: DataMemory, page: number, isOneOfFew: boolean): DataFinder {
    if (memory === this.memory && page >= this.knownFrom && page < this.dataEnd) return this;
    this.memory = memory;
    this.knownFrom = page;
    const { overlay, fullUnits } = memory;
    if (overlay !== null) {
      const { start, end } = overlay.findData(page, NO_MORE);
      this.dataStart = start;
      this.dataEnd = end;
    } else if (isOneOfFew || fullUnits === undefined) this.seek(memory, page, isOneOfFew);
    else this.findShared(memory, page, fullUnits);
    return this;
  }

  private findShared(memory: DataMemory, page: number, fullUnits: FullUnits): void {
    const unit = Math.floor(page / PAGES_PER_UNIT);
    this.dataStart = page;
    this.dataEnd = (unit + 1) * PAGES_PER_UNIT;
    if (fullUnits.has(unit)) return;
    // An extent that covers several units begins in the middle of at most one.
    if (page % PAGES_PER_UNIT !== 0) this.seekAndNote(memory, page, fullUnits);
    else fullUnits.lookUnlessFull(unit, () => this.seekAndNote(memory, page, fullUnits));
  }

  private seekAndNote(memory: DataMemory, page: number, fullUnits: FullUnits): void {
    this.seek(memory, page, false);
    if (this.dataEnd - this.dataStart >= PAGES_PER_UNIT)
      fullUnits.note(this.dataStart, this.dataEnd);
  }

  private seek({ fd }: DataMemory, page: number, isOneOfFew: boolean): void {
    const offset = seekData(fd, page * PAGE_SIZE);
    this.dataStart = offset < 0 ? NO_MORE : Math.floor(offset / PAGE_SIZE);
    if (offset < 0) this.dataEnd = NO_MORE;
    else if (isOneOfFew) this.dataEnd = this.dataStart + 1;
    // On a file system with smaller blocks, a hole may begin inside a page. If the program has
    // decommitted the data since, both are equal, and the caller asks again after it.
    else this.dataEnd = Math.ceil(seekHole(fd, offset) / PAGE_SIZE);
  }
}

export function countPages(lengths: Uint32Array): number {
  let pages = 0;
  for (const length of lengths) pages += length;
  return pages;
}
