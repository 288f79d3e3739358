/**
 * UnitReader: reads units of loads through a page source. It claims pages, adds the reads, decodes
 * and checks their bytes, and publishes the pages. Background threads, the demand thread and
 * waiters all use it. They differ in the reader and in how many units they have in flight.
 *
 * Newer pages are never overwritten: reads go only to pages that this thread has claimed.
 */
import { reach } from "../control/interleave.ts";
import { HUGE_PAGE_SIZE, PAGE_SIZE } from "../pages/units.ts";
import { crossesNetwork, endsBefore } from "../source/describe.ts";
import type { ReadCompletions, SourceReader } from "../source/reader.ts";
import { HUGE_PAGES_MIN, makeHuge } from "./huge-pages.ts";
import { populate } from "./populate.ts";
import { FrameDecoder } from "./frame-decoder.ts";
import { ERROR_CHECKSUM, ERROR_SHORT } from "./load-state.ts";
import { noteInFlight } from "./load-stats.ts";
import { LoadWord, PAGES_PER_UNIT, WORDS_PER_UNIT } from "./load-tables.ts";
import type { OpenLoad } from "./open-load.ts";
import { combineChecksums } from "./page-checksums.ts";
import { READS_MAX, ReadKind } from "./read-plan.ts";
import { UnitJob } from "./unit-job.ts";

/**
 * How many reads of a unit may fail before the rest of it fails, too: finding one bad page takes
 * nine, and a disk may need seconds for each. A later attempt (retryLoad) for one page reads less.
 */
const FAILED_READS_MAX = 64;

export class UnitReader {
  /** The most units in flight. */
  readonly depth: number;
  private readonly source: SourceReader;
  private readonly jobs: UnitJob[] = [];
  private readonly idle: UnitJob[] = [];
  /** Jobs with reads that are still to be added, the oldest first. */
  private readonly unfed: UnitJob[] = [];
  /** A pending wait of a reader that needs the event loop. */
  private waiting: Promise<void> | undefined;
  private isClosing = false;
  private readonly decoder = new FrameDecoder();
  private readonly scratchIovec = new Float64Array(2);
  /** Bits of a unit's pages that are read again. */
  private readonly again = new Int32Array(WORDS_PER_UNIT);

  /** The reader of the source belongs to it. `depth`: units in flight. */
  constructor(source: SourceReader, depth: number) {
    this.source = source;
    this.depth = depth;
  }

  get inFlight(): number {
    return this.jobs.length - this.idle.length;
  }

  /** Units in flight that are of use now: at most `depth`. */
  get usefulUnits(): number {
    return Math.min(this.depth, this.source.usefulReads);
  }

  /** True if `collect` blocks. */
  get mayBlock(): boolean {
    return this.source.capabilities.mayBlock;
  }

  /** Begins to read the free pages of a unit. Precondition: `inFlight < depth`. */
  startUnit(load: OpenLoad, unit: number): void {
    const job = this.nextIdle();
    job.want.fill(-1);
    job.isInOrder = true;
    this.begin(job, load, unit, false);
  }

  /** The same for pages of a unit that a program waits for, by their bits. */
  startPages(load: OpenLoad, unit: number, want: Int32Array): void {
    this.startSome(load, unit, want, true);
  }

  /** The same for pages that the background pass reads before the rest. */
  startFirst(load: OpenLoad, unit: number, want: Int32Array): void {
    this.startSome(load, unit, want, false);
  }

  /** A job that is not in flight. Made on first use: one has 75 KiB of tables. */
  private nextIdle(): UnitJob {
    const job = this.idle.at(-1) ?? new UnitJob(this.jobs.length);
    if (job.index < this.jobs.length) return job;
    this.jobs.push(job);
    this.idle.push(job);
    return job;
  }

  private startSome(load: OpenLoad, unit: number, want: Int32Array, isDemanded: boolean): void {
    const job = this.nextIdle();
    job.want.set(want);
    if (isDemanded && crossesNetwork(load.state.handle.source)) job.widenToBlocks();
    load.state.places.extendToFrames(unit, job.want);
    job.isInOrder = false;
    this.begin(job, load, unit, isDemanded);
  }

  /** Reads pages [start, end) of a unit that no thread has started. Precondition: `mayBlock`. */
  readPages(load: OpenLoad, unit: number, start: number, end: number): void {
    const want = new Int32Array(WORDS_PER_UNIT);
    for (let page = start; page < end; page++) {
      const bit = page - unit * PAGES_PER_UNIT;
      want[bit >>> 5]! |= 1 << (bit & 31);
    }
    while (this.inFlight === this.depth) this.collect();
    this.startPages(load, unit, want);
    this.drain();
  }

  /** Waits for all that is in flight. Precondition: `mayBlock`. */
  drain(): void {
    while (this.inFlight > 0) this.collect();
  }

  /** Blocks until reads have ended, and takes them. Precondition: `mayBlock`, units in flight. */
  collect(): void {
    this.take(this.source.wait(1));
  }

  /** The same for an event loop. Calls while one is pending get the same promise. */
  collectAsync(): Promise<void> {
    this.waiting ??= this.source.waitAsync(1).then(
      (completions) => {
        this.waiting = undefined;
        // Reads that `close` has ended do not mean that their contents are bad.
        if (!this.isClosing) this.take(completions);
      },
      (error: unknown) => {
        this.waiting = undefined;
        throw error;
      },
    );
    return this.waiting;
  }

  /** Ends reads, gives claims back, and asks other threads for their pages. */
  async close(): Promise<void> {
    this.isClosing = true;
    // The wait fails because of the closing.
    this.waiting?.then(undefined, () => undefined);
    await this.source.close();
    for (const job of this.jobs) {
      if (!this.idle.includes(job)) this.abandon(job);
      job.close();
    }
    this.idle.length = 0;
    this.decoder.close();
  }

  private abandon(job: UnitJob): void {
    const load = job.load!;
    load.state.unclaim(job.slot, job.unit, job.want);
    load.state.freeSlot(job.slot);
    load.state.demands.demandBits(job.unit, job.want);
    load.inFlight--;
  }

  /** Claims the job's pages that are free, and adds their reads if there are any. */
  private begin(job: UnitJob, load: OpenLoad, unit: number, isDemanded: boolean): void {
    const { state } = load;
    const slot = state.takeSlot();
    job.count = state.claim(slot, unit, job.want);
    if (job.count === 0) {
      state.freeSlot(slot);
      return;
    }
    reach("load: claimed");
    // A thread that stops a load sets Stop, then waits for claims: one of the two sees the other.
    if (Atomics.load(state.words, LoadWord.Stop) !== 0) {
      state.unclaim(slot, unit, job.want);
      state.freeSlot(slot);
      // A retry may have restarted the order already, and no thread would return to the unit.
      state.demands.demandBits(unit, job.want);
      return;
    }
    this.idle.pop();
    job.begin(load, slot, unit, isDemanded);
    load.inFlight++;
    job.plan.build(state.places, unit, job.want, this.source.capabilities);
    this.planChecksums(job);
    // Before all reads: one beside it would fault small pages in, and the kernel would refuse to
    // collapse.
    const address = load.base + unit * HUGE_PAGE_SIZE;
    if (job.plan.mappedPages > 0) {
      if (job.isInOrder) load.readAhead.beginUnit(address);
      else load.readAhead.beginPages(address, job.want);
    } else if (job.count >= HUGE_PAGES_MIN) job.isHuge = makeHuge(address);
    this.unfed.push(job);
    this.feed();
  }

  /** Adds reads of the blocks of checksums that no thread has read yet. */
  private planChecksums(job: UnitJob): void {
    const column = job.load!.state.checksums;
    if (column === null) return;
    const last = column.blockOf(job.plan.endRank - 1);
    for (let block = column.blockOf(job.plan.firstRank); block <= last; block++) {
      if (column.isReady(block)) continue;
      job.plan.addBlock(block, column.placeOf(block));
      job.checksLater = true;
    }
  }

  /** Adds as many reads as the reader and the scratch memory have room for. */
  private feed(): void {
    const { source, unfed } = this;
    const { readsInFlight } = source.capabilities;
    for (let at = 0; at < unfed.length && source.inFlight < readsInFlight; ) {
      const job = unfed[at]!;
      const { words } = job.load!.state;
      let added = 0;
      while (job.added < job.plan.readCount && source.inFlight < readsInFlight) {
        const op = job.added;
        if (job.plan.kind[op] === ReadKind.Mapped) {
          job.added++;
          this.endMapped(job, op);
          continue;
        }
        if (!this.add(job, op)) break;
        job.added++;
        if (job.plan.kind[op] !== ReadKind.Block) added++;
      }
      Atomics.add(words, LoadWord.ReadCalls, added);
      if (added > 0) noteInFlight(words, source.inFlight);
      if (job.added < job.plan.readCount) at++;
      else unfed.splice(at, 1);
    }
  }

  /** False if there is no scratch memory for the read yet. */
  private add(job: UnitJob, op: number): boolean {
    const { plan } = job;
    const id = job.index * READS_MAX + op;
    const content = plan.content[op]!;
    const offset = plan.offset[op]!;
    if (plan.kind[op] === ReadKind.Pages) {
      const { iovecs, count } = plan.iovecsOf(op, job.load!.base);
      this.source.read(id, content, offset, iovecs, count);
      return true;
    }
    const { alignmentBytes } = this.source.capabilities;
    // Behind a frame is the next one, or the content's end.
    const lengthBytes = Math.ceil(plan.lengthBytes[op]! / alignmentBytes) * alignmentBytes;
    const address = job.takeScratch(op, lengthBytes);
    if (address === 0) return false;
    this.scratchIovec[0] = address;
    this.scratchIovec[1] = lengthBytes;
    this.source.read(id, content, offset, this.scratchIovec, 1);
    return true;
  }

  private take({ count, ids, bytes, errors }: ReadCompletions): void {
    for (let i = 0; i < count; i++) {
      const job = this.jobs[Math.floor(ids[i]! / READS_MAX)]!;
      this.end(job, ids[i]! % READS_MAX, bytes[i]!, errors[i]!);
    }
    this.feed();
  }

  /** Called when a read has ended. */
  private end(job: UnitJob, op: number, bytes: number, error: Error | null): void {
    const { kind, lengthBytes, readCount } = job.plan;
    const isWhole = error === null && bytes >= lengthBytes[op]!;
    if (kind[op] === ReadKind.Block) this.endBlock(job, op, isWhole, error);
    else if (kind[op] === ReadKind.Frame) this.endFrame(job, op, isWhole, error);
    else this.endPages(job, op, isWhole, bytes, error);
    if (kind[op] === ReadKind.Frame || kind[op] === ReadKind.Block) job.freeScratch();
    job.ended++;
    // A failed read may have added its halves.
    if (job.plan.readCount > readCount && !this.unfed.includes(job)) this.unfed.push(job);
    if (job.ended === job.plan.readCount) this.endUnit(job);
  }

  /** Populates mapped pages without touching them: a page that cannot be read is an error. */
  private endMapped(job: UnitJob, op: number): void {
    const { base } = job.load!;
    const { plan } = job;
    let error: Error | null = null;
    plan.forEachRun(op, (page, pages) => {
      error ??= populate(base + page * PAGE_SIZE, pages * PAGE_SIZE);
    });
    this.end(job, op, error === null ? plan.lengthBytes[op]! : 0, error);
  }

  private endPages(
    job: UnitJob,
    op: number,
    isWhole: boolean,
    bytes: number,
    error: Error | null,
  ): void {
    const { plan } = job;
    if (error !== null) {
      job.failedReads++;
      const { mayFailInPart } = this.source.capabilities;
      // One block that a disk cannot read fails the whole read: halve it down to that block.
      if (mayFailInPart && job.failedReads < FAILED_READS_MAX && plan.split(op)) return;
      const { handle, errors } = job.load!.state;
      const end = plan.offset[op]! + plan.lengthBytes[op]!;
      // The kernel has the same error for mapped pages behind the end and for those it cannot read.
      const isCut = endsBefore(handle.source, plan.content[op]!, end);
      const number = isCut ? ERROR_SHORT : errors.add(error);
      plan.forEachRun(op, (page, pages) => job.markBad(number, page, pages));
      return;
    }
    if (!isWhole) {
      let left = Math.floor(bytes / PAGE_SIZE);
      plan.forEachRun(op, (page, pages) => {
        const filled = Math.min(pages, left);
        job.markBad(ERROR_SHORT, page + filled, pages - filled);
        left -= filled;
      });
    }
    // At once, while the pages are in the processor's cache.
    if (!job.checksLater)
      plan.forEachRun(op, (page, pages, rank) => this.verify(job, page, pages, rank));
  }

  private endFrame(job: UnitJob, op: number, isWhole: boolean, error: Error | null): void {
    const { plan } = job;
    const { state } = job.load!;
    let failure = 0;
    if (error !== null) failure = state.errors.add(error);
    else if (!isWhole) failure = ERROR_SHORT;
    else failure = this.decoder.decode(job, op);
    if (failure !== 0) plan.forEachRun(op, (page, pages) => job.markBad(failure, page, pages));
    else if (!job.checksLater)
      plan.forEachRun(op, (page, pages, rank) => this.verify(job, page, pages, rank));
  }

  /** Called when a block of checksums was read. If it is damaged, so are its pages. */
  private endBlock(job: UnitJob, op: number, isWhole: boolean, error: Error | null): void {
    const { state } = job.load!;
    const column = state.checksums!;
    const block = job.plan.item[op]!;
    if (isWhole && column.install(block, job.scratchAt[op]!)) return;
    const failure = error === null ? ERROR_CHECKSUM : state.errors.add(error);
    job.plan.forEachOfUnit((page, pages, rank) => {
      for (let i = 0; i < pages; i++)
        if (column.blockOf(rank + i) === block) job.markBad(failure, page + i, 1);
    });
  }

  /** Called when all reads of a unit have ended. */
  private endUnit(job: UnitJob): void {
    const { state, control } = job.load!;
    if (job.checksLater)
      job.plan.forEachOfUnit((page, pages, rank) => this.verify(job, page, pages, rank));
    if (this.refetch(job)) return;
    reach("load: bytes in place");
    const good = job.count - job.badCount;
    // Before it is published, because a waiter may read the counts at once.
    if (job.isDemanded) Atomics.add(state.words, LoadWord.DemandPages, good);
    const mapped = job.goodMappedPages();
    if (mapped > 0) Atomics.add(state.words, LoadWord.MappedPages, mapped);
    if (job.isHuge) Atomics.add(state.words, LoadWord.HugePages, good);
    if (job.badCount === 0) state.publish(control, job.slot, job.unit, job.want, job.count);
    else state.fail(control, job.slot, job);
    state.freeSlot(job.slot);
    job.load!.inFlight--;
    this.idle.push(job);
  }

  /** Reads damaged pages again if they came over a network. False if there is nothing to read. */
  private refetch(job: UnitJob): boolean {
    const { state } = job.load!;
    if (job.badCount === 0 || !crossesNetwork(state.handle.source)) return false;
    const pages = job.takeDamaged(this.again);
    if (pages === 0) return false;
    Atomics.add(state.words, LoadWord.RefetchedPages, pages);
    job.plan.build(state.places, job.unit, this.again, this.source.capabilities);
    this.planChecksums(job);
    this.unfed.push(job);
    return true;
  }

  /** Checks a run of pages against its checksums. */
  private verify(job: UnitJob, page: number, pages: number, rank: number): void {
    const load = job.load!;
    const values = load.state.checksums?.values;
    if (values === undefined) return;
    const window = load.windowFor(job.count);
    window.cover(page, page + pages);
    // All at once is cheaper; page by page if something is wrong. A page that could not be filled
    // is not touched: in a file on a full disk that would be a SIGBUS.
    const isFilled = job.badCount === 0;
    if (isFilled && crcOf(window.pages(page, pages)) === combineChecksums(values, rank, pages))
      return;
    for (let i = 0; i < pages; i++) {
      if (job.isBad(page + i)) continue;
      if (crcOf(window.pages(page + i, 1)) !== values[rank + i])
        job.markBad(ERROR_CHECKSUM, page + i, 1);
    }
  }
}

const crcOf = (bytes: Uint8Array): number => Bun.hash.crc32(bytes);
