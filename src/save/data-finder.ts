/**
 * Finds pages that have memory. Where most of a file is looked at, two system calls find an extent
 * of data, however long it is. But SEEK_HOLE walks all pages of the extent, 30 ms for 2 GiB of
 * small pages, wherever it begins. So where few pages are looked at, each is asked for: 0.7 µs.
 * Where many are, one thread of a pass walks a long extent, and the others learn from it
 * (FullUnits).
 */
import { fileStatus, seekData, seekHole } from "../../ffi/index.ts";
import type { Overlay } from "../memory/overlay.ts";
import { PAGE_SIZE, PAGES_PER_HUGE_PAGE as PAGES_PER_UNIT } from "../pages/units.ts";

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
  /** What other threads have found in this pass; undefined: only one thread looks. */
  readonly fullUnits?: FullUnits;
}

/** A thread that looks for an extent's end may have died: others look as well after that time. */
const LOOK_WAIT_MS = 200;
/** The lock is before the units' bytes. */
const LOCK_BYTES = 4;

/**
 * Units of which each page has memory, as far as the threads of a pass know. A byte a unit, set
 * once; and a lock, so that threads that begin together do not walk the same extent.
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

  /** Pages [start, end) have memory. */
  note(start: number, end: number): void {
    const first = Math.ceil(start / PAGES_PER_UNIT);
    const last = Math.min(this.isFull.length, Math.floor(end / PAGES_PER_UNIT));
    for (let unit = first; unit < last; unit++) Atomics.store(this.isFull, unit, 1);
  }

  /** Calls `look` while no other thread does so, unless `unit` is full by then. */
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
    const seek = () => {
      this.seek(memory, page, false);
      if (this.dataStart < NO_MORE) fullUnits.note(this.dataStart, this.dataEnd);
    };
    // An extent that covers several units begins in the middle of one at most.
    if (page % PAGES_PER_UNIT === 0) fullUnits.lookUnlessFull(unit, seek);
    else seek();
  }

  private seek({ fd }: DataMemory, page: number, isOneOfFew: boolean): void {
    const offset = seekData(fd, page * PAGE_SIZE);
    this.dataStart = offset < 0 ? NO_MORE : Math.floor(offset / PAGE_SIZE);
    if (offset < 0) this.dataEnd = NO_MORE;
    else if (isOneOfFew) this.dataEnd = this.dataStart + 1;
    // A hole may begin inside a page on a file system with smaller blocks. If the program has
    // decommitted the data since, both are the same, and the caller asks again behind it.
    else this.dataEnd = Math.ceil(seekHole(fd, offset) / PAGE_SIZE);
  }
}

export function countPages(lengths: Uint32Array): number {
  let pages = 0;
  for (const length of lengths) pages += length;
  return pages;
}
