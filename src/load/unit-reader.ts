/**
 * Reads units of a restore over an aio queue: claims pages, adds the reads, and when they have ended checks the contents and
 * publishes them. Background threads, the demand thread and waiters all do it this way; they differ in the queue and in how
 * many units they have in flight.
 *
 * Where most of a unit is read at once its memory is first made a huge page: allocating 512 small pages costs several times
 * what copying them does. That commits the whole 2 MiB, so a sparser unit is read into small pages.
 */
import { errnoNumber, MAX_IOVECS, readAt } from "../../ffi/index.ts";
import { coalesce, type Operations } from "../aio/coalesce.ts";
import type { Completions, Queue } from "../aio/queue.ts";
import type { Control } from "../control/control.ts";
import { reach } from "../control/interleave.ts";
import { HUGE_PAGE_SIZE, PAGE_SIZE } from "../pages/units.ts";
import {
  ERROR_CHECKSUM,
  ERROR_SHORT,
  type LoadState,
  LoadWord,
  PAGES_PER_UNIT,
  WORDS_PER_UNIT,
} from "./load-state.ts";
import { MemoryWindow } from "./memory-window.ts";
import { combineChecksums } from "./page-checksums.ts";

/**
 * A unit becomes a huge page if at least this many of its pages are read. Measured, page cache hot, median of 400 units: a
 * full unit takes 181 us to make huge and 120 us to read, 1583 us into small pages; one with every fourth page absent 144 us
 * to read once it is huge, 1160 us into small pages. So a huge page is faster from a seventh of its pages up; what speaks
 * against it is memory, and two thirds bound that: at most half as much again as the contents.
 */
const HUGE_PAGES_MIN = Math.ceil((PAGES_PER_UNIT * 2) / 3);
/**
 * How many reads of a unit may fail before the rest of it is given up: finding one bad page takes nine, and a disk may need
 * seconds for each. Who waits for a page that was given up may try again (retryLoad), and that reads less.
 */
const FAILED_READS_MAX = 64;
/** Units of which fewer pages are read at once are checked in a window on those pages alone. */
const WINDOW_JOB_PAGES_MIN = PAGES_PER_UNIT / 8;
const EINVAL = errnoNumber("EINVAL");

/** Where contents come from, and where they go. */
export interface ReaderOptions {
  readonly control: Control;
  readonly state: LoadState;
  readonly base: number;
  readonly fd: number;
  /** The same file without the page cache (O_DIRECT), or -1. */
  readonly directFd: number;
}

/** How a reader goes about it. */
export interface ReaderLimits {
  /** Units in flight. */
  readonly depth: number;
  /** The most that one operation reads. */
  readonly readBytes: number;
  /** Memory is looked at through buffers of so many pages, a multiple of a unit's (memory-window.ts). */
  readonly windowPages: number;
}

/** One claimed unit on its way. Reused. */
class UnitJob {
  readonly index: number;
  readonly slot: number;
  /** The claimed pages' bits. */
  readonly want = new Int32Array(WORDS_PER_UNIT);
  unit = 0;
  count = 0;
  operations!: Operations;
  /** Operations that may be added, that have been, and that have ended. */
  allowed = 0;
  added = 0;
  ended = 0;
  isHuge = false;
  /** Somebody waits for it. */
  isDemanded = false;
  /** Reads that failed after the operations had. */
  failedReads = 0;
  /** The first error; a checksum's only if all could be read. */
  error = 0;
  /** Bits of the pages that could not be read, or are not what they should be. */
  readonly bad = new Int32Array(WORDS_PER_UNIT);
  /** Of those, the pages that could be read. */
  readonly mismatched = new Int32Array(WORDS_PER_UNIT);
  badCount = 0;
  /** 1 for each operation that reads past the page cache. */
  readonly isDirect = new Uint8Array(PAGES_PER_UNIT);

  constructor(index: number, slot: number) {
    this.index = index;
    this.slot = slot;
  }

  markBad(error: number, first: number, pages: number): void {
    if (pages > 0 && (this.error === 0 || this.error === ERROR_CHECKSUM)) this.error = error;
    for (let page = first; page < first + pages; page++) {
      const bit = page - this.unit * PAGES_PER_UNIT;
      this.bad[bit >>> 5]! |= 1 << (bit & 31);
      if (error === ERROR_CHECKSUM) this.mismatched[bit >>> 5]! |= 1 << (bit & 31);
    }
    this.badCount += pages;
  }

  isBad(page: number): boolean {
    const bit = page - this.unit * PAGES_PER_UNIT;
    return (this.bad[bit >>> 5]! & (1 << (bit & 31))) !== 0;
  }
}

export class UnitReader {
  private readonly control: Control;
  private readonly state: LoadState;
  private readonly base: number;
  private readonly fd: number;
  private directFd: number;
  private readonly queue: Queue;
  private readonly readBytes: number;
  private readonly jobs: UnitJob[];
  private readonly idle: UnitJob[];
  /** Jobs with operations that the queue had no room for, the oldest first. */
  private readonly unfed: UnitJob[] = [];
  /** Where units are checked, and where a few pages are. */
  private readonly unitWindow: MemoryWindow;
  private readonly pageWindow: MemoryWindow;
  private readonly addresses = new Float64Array(PAGES_PER_UNIT);
  private readonly offsets = new Float64Array(PAGES_PER_UNIT);
  private readonly lengths = new Float64Array(PAGES_PER_UNIT);

  /** Whoever made the queue destroys it, and then closes the reader. */
  constructor(options: ReaderOptions, queue: Queue, limits: ReaderLimits) {
    this.control = options.control;
    this.state = options.state;
    this.base = options.base;
    this.fd = options.fd;
    this.directFd = options.directFd;
    this.queue = queue;
    this.readBytes = limits.readBytes;
    const sizePages = this.state.words[LoadWord.SizePages]!;
    this.unitWindow = new MemoryWindow(this.base, sizePages, limits.windowPages);
    this.pageWindow = new MemoryWindow(this.base, sizePages, 1);
    this.jobs = Array.from(
      { length: limits.depth },
      (_, index) => new UnitJob(index, this.state.takeSlot()),
    );
    this.idle = this.jobs.slice();
  }

  /** Units in flight. */
  get inFlight(): number {
    return this.jobs.length - this.idle.length;
  }

  /** Begins to read what nobody has started of a unit. Precondition: fewer than `depth` are in flight. */
  startUnit(unit: number): void {
    const job = this.idle.at(-1)!;
    job.want.fill(-1);
    this.begin(job, unit, false);
  }

  /** Waits for reads, and publishes the units that are complete. Precondition: something is in flight. */
  collect(): void {
    this.take(this.queue.wait(1));
  }

  /** Reads what nobody has started of pages [start, end), which lie in one unit, for somebody who waits. */
  readPages(unit: number, start: number, end: number): void {
    const job = this.idle.at(-1)!;
    job.want.fill(0);
    for (let page = start; page < end; page++) {
      const bit = page - unit * PAGES_PER_UNIT;
      job.want[bit >>> 5]! |= 1 << (bit & 31);
    }
    this.readNow(job, unit);
  }

  /** Reads one unit's wanted pages. False if nobody wants any. */
  readDemanded(): boolean {
    while (this.idle.length === 0) this.collect();
    const job = this.idle.at(-1)!;
    const unit = this.state.takeDemand(job.want);
    if (unit < 0) return false;
    this.readNow(job, unit);
    return true;
  }

  private readNow(job: UnitJob, unit: number): void {
    this.begin(job, unit, true);
    while (this.inFlight > 0) this.collect();
  }

  /**
   * Gives up this thread's claims; what was not published is demanded anew, for others to read. Precondition: nothing is in
   * flight in the queue any more.
   */
  close(): void {
    for (const job of this.jobs) {
      if (!this.idle.includes(job)) {
        this.state.unclaim(job.slot, job.unit, job.want);
        this.state.demandBits(job.unit, job.want);
      }
      this.state.freeSlot(job.slot);
    }
    this.idle.length = 0;
    this.unitWindow.close();
    this.pageWindow.close();
  }

  /** Claims what is free of the job's pages, and adds the reads if that is anything. */
  private begin(job: UnitJob, unit: number, isDemanded: boolean): void {
    const { state } = this;
    const count = state.claim(job.slot, unit, job.want);
    if (count === 0) return;
    reach("load: claimed");
    // Whoever stops a load sets Stop and then waits for claims to end: one of the two sees the other.
    if (Atomics.load(state.words, LoadWord.Stop) !== 0) {
      state.unclaim(job.slot, unit, job.want);
      return;
    }
    this.idle.pop();
    job.unit = unit;
    job.count = count;
    job.added = job.ended = job.failedReads = job.error = job.badCount = 0;
    job.bad.fill(0);
    job.mismatched.fill(0);
    job.isHuge = false;
    job.isDemanded = isDemanded;
    job.operations = this.plan(job);
    // A read beside the one that makes the huge page would fault small pages in, and the kernel refuse to collapse them.
    job.allowed = this.wantsHuge(job) ? 1 : job.operations.count;
    this.unfed.push(job);
    this.feed();
  }

  /** The job's reads: pieces that follow one another in the file are one. */
  private plan(job: UnitJob): Operations {
    const { addresses, offsets, lengths, base } = this;
    let count = 0;
    this.forEachPiece(job, (page, pages, fileOffset) => {
      addresses[count] = base + page * PAGE_SIZE;
      offsets[count] = fileOffset;
      lengths[count++] = pages * PAGE_SIZE;
    });
    return coalesce(
      { addresses, offsets, lengths, count },
      { maxBytes: this.readBytes, maxIovecs: MAX_IOVECS },
    );
  }

  /** Adds as many operations as the queue has room for. */
  private feed(): void {
    const { queue, unfed } = this;
    let added = 0;
    for (let job = unfed[0]; job !== undefined; job = unfed[0]) {
      while (job.added < job.allowed && queue.inFlight < queue.capacity) {
        this.add(job, job.added++);
        added++;
      }
      if (job.added < job.allowed) break;
      unfed.shift();
    }
    Atomics.add(this.state.words, LoadWord.ReadCalls, added);
    this.state.noteInFlight(queue.inFlight);
  }

  private wantsHuge(job: UnitJob): boolean {
    return job.count >= HUGE_PAGES_MIN;
  }

  private add(job: UnitJob, index: number): void {
    const { offsets, lengths, firstSegment, iovecs } = job.operations;
    const first = firstSegment[index]!;
    const segments = firstSegment[index + 1]! - first;
    job.isDirect[index] = this.directFd >= 0 ? 1 : 0;
    const fd = this.directFd >= 0 ? this.directFd : this.fd;
    const id = job.index * PAGES_PER_UNIT + index;
    const block = index === 0 && this.wantsHuge(job) ? this.base + job.unit * HUGE_PAGE_SIZE : 0;
    if (segments === 1)
      this.queue.read(id, fd, iovecs[2 * first]!, lengths[index]!, offsets[index]!, block);
    else this.queue.readv(id, fd, iovecs.subarray(2 * first), segments, offsets[index]!, block);
  }

  private take({ count, ids, results, huge }: Completions): void {
    for (let i = 0; i < count; i++) {
      const job = this.jobs[Math.floor(ids[i]! / PAGES_PER_UNIT)]!;
      const index = ids[i]! % PAGES_PER_UNIT;
      if (huge[i] === 1) job.isHuge = true;
      if (results[i] === -EINVAL && job.isDirect[index] === 1) {
        // A file system may refuse to read what it let us open: the page cache serves, also for others that are on their way.
        this.directFd = -1;
        this.add(job, index);
      } else this.end(job, index, results[i]!);
    }
    this.feed();
  }

  private end(job: UnitJob, index: number, result: number): void {
    job.ended++;
    const lengthBytes = job.operations.lengths[index]!;
    if (result < lengthBytes) this.rescue(job, index, result);
    this.verify(job, index, result === lengthBytes);
    if (job.ended === job.operations.count) this.settle(job);
    else if (job.allowed < job.operations.count) {
      job.allowed = job.operations.count;
      this.unfed.push(job);
    }
  }

  /** An operation has failed, or stopped behind `result` bytes: what it did not fill is bad, or read again in smaller pieces. */
  private rescue(job: UnitJob, index: number, result: number): void {
    const { firstSegment, iovecs, offsets } = job.operations;
    let left = Math.max(0, result);
    let offset = offsets[index]!;
    for (let segment = firstSegment[index]!; segment < firstSegment[index + 1]!; segment++) {
      const first = (iovecs[2 * segment]! - this.base) / PAGE_SIZE;
      const pages = iovecs[2 * segment + 1]! / PAGE_SIZE;
      const filled = Math.min(pages, Math.floor(left / PAGE_SIZE));
      if (result < 0) this.readHalves(job, first, pages, offset, -result);
      else job.markBad(ERROR_SHORT, first + filled, pages - filled);
      left = Math.max(0, left - pages * PAGE_SIZE);
      offset += pages * PAGE_SIZE;
    }
  }

  /**
   * One block that a disk cannot read fails the whole operation: halves it until only pages are left that cannot be read. In this
   * thread and through the page cache, since it is rare.
   */
  private readHalves(
    job: UnitJob,
    first: number,
    pages: number,
    offset: number,
    error: number,
  ): void {
    if (pages === 1 || job.failedReads >= FAILED_READS_MAX) {
      job.markBad(error, first, pages);
      return;
    }
    const half = Math.ceil(pages / 2);
    this.readAgain(job, first, half, offset);
    this.readAgain(job, first + half, pages - half, offset + half * PAGE_SIZE);
  }

  private readAgain(job: UnitJob, first: number, pages: number, offset: number): void {
    Atomics.add(this.state.words, LoadWord.ReadCalls, 1);
    const result = readAt(this.fd, this.base + first * PAGE_SIZE, pages * PAGE_SIZE, offset);
    if (result < 0) {
      job.failedReads++;
      this.readHalves(job, first, pages, offset, -result);
    } else {
      const filled = Math.floor(result / PAGE_SIZE);
      job.markBad(ERROR_SHORT, first + filled, pages - filled);
    }
  }

  /** Everything of a unit has been read, or has failed. */
  private settle(job: UnitJob): void {
    const { control, state } = this;
    reach("load: bytes in place");
    const good = job.count - job.badCount;
    // Counted before it is published: who waited for it may look at the counts at once.
    if (job.isDemanded) Atomics.add(state.words, LoadWord.DemandPages, good);
    if (job.isHuge) Atomics.add(state.words, LoadWord.HugePages, good);
    if (job.badCount === 0) state.publish(control, job.slot, job.unit, job.want, job.count);
    else state.fail(control, job.slot, job);
    this.idle.push(job);
  }

  /** Checks what an operation read against its checksums, as soon as it is there: it is still in the processor's cache then. */
  private verify(job: UnitJob, index: number, isWhole: boolean): void {
    const { checksums } = this.state;
    if (checksums.length === 0) return;
    const { offsets, firstSegment, iovecs } = job.operations;
    const window = job.count < WINDOW_JOB_PAGES_MIN ? this.pageWindow : this.unitWindow;
    let content = this.state.contentAt(offsets[index]!);
    for (let segment = firstSegment[index]!; segment < firstSegment[index + 1]!; segment++) {
      const page = (iovecs[2 * segment]! - this.base) / PAGE_SIZE;
      const pages = iovecs[2 * segment + 1]! / PAGE_SIZE;
      window.cover(page, page + pages);
      // All at once is cheaper; page by page where something is wrong.
      const isGood =
        isWhole &&
        Bun.hash.crc32(window.pages(page, pages)) === combineChecksums(checksums, content, pages);
      for (let i = 0; i < pages && !isGood; i++) {
        if (job.isBad(page + i)) continue;
        if (Bun.hash.crc32(window.pages(page + i, 1)) !== checksums[content + i])
          job.markBad(ERROR_CHECKSUM, page + i, 1);
      }
      content += pages;
    }
  }

  /** Calls `visit(page, pages, fileOffset)` for each piece of the claimed pages that is one in memory and in the file. */
  private forEachPiece(
    job: UnitJob,
    visit: (page: number, pages: number, fileOffset: number) => void,
  ): void {
    const { state } = this;
    const { want, unit } = job;
    const { extentStart, extentLength } = state;
    const first = unit * PAGES_PER_UNIT;
    const end = first + PAGES_PER_UNIT;
    let content = state.firstContentOf(unit);
    for (
      let extent = state.firstExtentOf(unit);
      extent < extentStart.length;
      content += extentLength[extent++]!
    ) {
      const start = extentStart[extent]!;
      if (start >= end) return;
      const stop = Math.min(end, start + extentLength[extent]!);
      for (let page = Math.max(first, start); page < stop; ) {
        const from = nextBit(want, page - first, stop - first, true);
        const to = nextBit(want, from, stop - first, false);
        const skipped = first + from - start;
        if (to > from) {
          const fileOffset = state.offsetOfContent(extent, content) + skipped * PAGE_SIZE;
          visit(first + from, to - from, fileOffset);
        }
        page = first + to;
      }
    }
  }
}

/** The first index in [from, end) whose bit is set (or clear), or `end`. */
function nextBit(bits: Int32Array, from: number, end: number, set: boolean): number {
  let index = from;
  while (index < end) {
    const word = (set ? bits[index >>> 5]! : ~bits[index >>> 5]!) >>> (index & 31);
    if (word !== 0) return Math.min(end, index + 31 - Math.clz32(word & -word));
    index = (index | 31) + 1;
  }
  return end;
}
