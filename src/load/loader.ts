/**
 * Loader: one thread's handle on a restore. It asks what is loaded, waits, cancels; in the thread that called `loadFrom`
 * it also runs the loading threads and closes the pages file when they have left.
 *
 * A thread that may block reads what it misses itself and waits only for pages that others have claimed. A thread that may
 * not (awaitLoad) has the demand thread read them, and sleeps in one `Atomics.waitAsync` however many waiters it has.
 */
import { closeFile, SyscallError } from "../../ffi/index.ts";
import { CorruptCheckpointError, DestroyedError } from "../errors/errors.ts";
import { InlineQueue } from "../aio/inline-queue.ts";
import { type Control, wakeWaiters, Word } from "../control/control.ts";
import { reach } from "../control/interleave.ts";
import { isThreadAlive, THREAD_ID } from "../threads/thread.ts";
import { PAGE_SIZE } from "../pages/units.ts";
import {
  chooseQueue,
  choiceOf,
  type LoadQueue,
  type QueueChoice,
  storeChoice,
} from "./choose-queue.ts";
import {
  ERROR_CHECKSUM,
  ERROR_SHORT,
  type LoadState,
  LoadWord,
  PAGES_PER_UNIT,
} from "./load-state.ts";
import { INLINE_READ_BYTES, LIVENESS_CHECK_MS, readNext } from "./load-task.ts";
import { isWhole } from "./load-tables.ts";
import { LoadThreads } from "./load-threads.ts";
import { UnitReader } from "./unit-reader.ts";

/** What a restore has done so far; sizes in bytes. */
export interface LoadStats {
  readonly isLoading: boolean;
  /** Contents to load: what the pages file holds. */
  readonly totalBytes: number;
  readonly loadedBytes: number;
  /** Contents whose read failed; they stay failed until `retryLoad`. */
  readonly failedBytes: number;
  /** Loaded because somebody waited for them. */
  readonly demandBytes: number;
  /** Loaded into huge pages, and into small ones. */
  readonly hugeBytes: number;
  readonly smallBytes: number;
  /** What the background pass reads by; null if there is nothing to load. */
  readonly queue: QueueChoice["queue"];
  /** True if it reads past the page cache (O_DIRECT). */
  readonly isDirect: boolean;
  /** Reads made, and the most that one thread had in flight at once. */
  readonly readCalls: number;
  readonly readsInFlightMax: number;
  /** The first failure, or null. */
  readonly error: Error | null;
}

/** The statistics of a file that was not restored. */
export const NOTHING_LOADED: LoadStats = {
  isLoading: false,
  totalBytes: 0,
  loadedBytes: 0,
  failedBytes: 0,
  demandBytes: 0,
  hugeBytes: 0,
  smallBytes: 0,
  queue: null,
  isDirect: false,
  readCalls: 0,
  readsInFlightMax: 0,
  error: null,
};

interface Waiter {
  readonly start: number;
  readonly end: number;
  readonly urgent: boolean;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

const INLINE_SLICE_MS = 2;
/**
 * Who awaits so many pages (2 MiB) reads them, until a thread serves demands: that takes 0.3 to 2 ms from the page cache, the thread
 * 3 to 100 ms to start. With 256 KiB the word search, which begins with ranges of 1 MiB, had its first answer after 309 ms,
 * with this after 176 (medians of 6 starts in turns, on a slow machine that others used).
 */
const OWN_READ_PAGES = 512;
/** But after so long in one turn of the event loop, others have theirs. */
const OWN_READ_MS = 1;
/** This thread's own garbage is collected as well, so its buffers are small. */
const OWN_READER = { depth: 1, readBytes: INLINE_READ_BYTES, windowPages: 32 * PAGES_PER_UNIT };

export interface LoaderOptions {
  readonly control: Control;
  readonly state: LoadState;
  readonly base: number;
  readonly fd: number;
  readonly path: string;
}

export class Loader {
  readonly state: LoadState;
  private readonly control: Control;
  private readonly base: number;
  readonly fd: number;
  readonly path: string;
  private reader: UnitReader | undefined;
  private readonly waiters = new Set<Waiter>();
  /** How long this thread has read in this turn of its event loop. */
  private ownReadMs = 0;
  private isPumping = false;
  private stopReason: unknown;
  /** When the background pass may begin; what is waited for is read before. Set before `start`; undefined: at once. */
  turn: Promise<void> | undefined;
  private readonly stopped = Promise.withResolvers<void>();
  /** Resolves when no thread of ours reads any more. */
  finished: Promise<void> = Promise.resolve();
  /** Tells `onProgress` how far the load is, of its end once. Throws what that throws, from then on. */
  report: () => void = () => {};
  private isRunning = false;
  /** This thread's loader has the pages file to close. */
  private isOwner = false;

  constructor(options: LoaderOptions) {
    this.control = options.control;
    this.state = options.state;
    this.base = options.base;
    this.fd = options.fd;
    this.path = options.path;
  }

  /** Chooses how to read. @throws {SyscallError} with nothing opened */
  choose(queue: LoadQueue): void {
    storeChoice(this.state, chooseQueue(queue, this.fd, this.state));
  }

  /** Begins to load, as the owner of `fd`. Resolves when no thread of ours reads any more. Precondition: `choose`. */
  start(): Promise<void> {
    this.isOwner = true;
    Atomics.store(this.state.words, LoadWord.Owner, THREAD_ID);
    return this.run();
  }

  /** Looks after what a dead thread leaves: its claims, and the load itself if it ran it. */
  private takeOverFromDead(): void {
    const { words } = this.state;
    this.state.recoverDeadClaims();
    const owner = Atomics.load(words, LoadWord.Owner);
    if (
      owner === THREAD_ID ||
      owner === 0 ||
      words[LoadWord.PendingPages] === 0 ||
      isThreadAlive(owner)
    )
      return;
    if (Atomics.compareExchange(words, LoadWord.Owner, owner, THREAD_ID) !== owner) return;
    this.isOwner = true;
    // Units that the dead threads had taken, but claimed no page of, are in nobody's hands.
    Atomics.store(words, LoadWord.NextUnit, 0);
    void this.run();
  }

  private run(): Promise<void> {
    const work = choiceOf(this.state).queue === "inline" ? this.loadInline() : this.threads().run();
    this.isFinished = false;
    this.isRunning = true;
    this.finished = work.then(() => this.endRun());
    return this.finished;
  }

  /** Nobody claims any more, unless something was tried again meanwhile. The pages file goes when nobody can need it. */
  private async endRun(): Promise<void> {
    const { words } = this.state;
    await this.claimsRead();
    if (words[LoadWord.PendingPages]! > 0 && words[LoadWord.Stop] === 0) {
      this.state.recoverDeadClaims();
      this.state.endIfAllRead(this.control);
      if (words[LoadWord.PendingPages]! > 0) return this.run();
    }
    this.isRunning = false;
    if (words[LoadWord.PendingPages] === 0 && words[LoadWord.FailedPages] === 0) this.close();
  }

  private async claimsRead(): Promise<void> {
    while (this.state.hasClaims()) await new Promise((resolve) => setTimeout(resolve, 1));
  }

  /**
   * Makes what failed in [start, end) pending again, and an aborted load go on. Resolves when that is under way; await
   * the range then.
   */
  async retry(start: number, end: number): Promise<void> {
    const { words } = this.state;
    if (Atomics.load(words, LoadWord.Stop) !== 0) {
      await this.finished;
      if (this.control.words[Word.Destroyed] !== 0) return;
      this.stopReason = undefined;
      Atomics.store(words, LoadWord.NextUnit, 0);
      Atomics.store(words, LoadWord.Stop, 0);
      // Whoever destroys sets Destroyed and then Stop: one of the two sees the other.
      if (Atomics.load(this.control.words, Word.Destroyed) !== 0) return this.requestStop();
    }
    this.state.retry(start, end);
    if (!this.isRunning && words[LoadWord.PendingPages]! > 0) void this.run();
  }

  /** True when no thread started here touches the memory any more, and the pages file is closed. */
  isFinished = true;

  private async loadInline(): Promise<void> {
    const reader = this.ownReader();
    await this.serveUntilTurn(reader);
    for (let more = true; more; ) {
      const until = performance.now() + INLINE_SLICE_MS;
      while (more && performance.now() < until) more = readNext(this.state, reader);
      // Not once all is loaded: a program that never comes round its event loop would keep every file that it destroyed.
      if (this.isLoading) await new Promise((resolve) => setImmediate(resolve));
    }
  }

  private threads(): LoadThreads {
    const { control, state, base, fd } = this;
    const { queue, directFd } = choiceOf(state);
    const shared = { control: control.buffer, state: state.handle, base, fd };
    const begins = this.turn === undefined ? undefined : this.turnOrStop();
    return new LoadThreads(
      state,
      { ...shared, queue: queue === "uring" ? "uring" : "inline", directFd },
      begins,
      (error) => this.abort(error),
    );
  }

  private async turnOrStop(): Promise<void> {
    if (this.turn !== undefined) await Promise.race([this.turn, this.stopped.promise]);
  }

  private async serveUntilTurn(reader: UnitReader): Promise<void> {
    let mayWait = this.turn !== undefined;
    void this.turnOrStop().then(() => {
      mayWait = false;
    });
    while (mayWait) {
      if (!reader.readDemanded()) await new Promise((resolve) => setTimeout(resolve, 1));
    }
  }

  private ownReader(): UnitReader {
    const { control, state, base, fd } = this;
    this.reader ??= new UnitReader(
      { control, state, base, fd, directFd: -1 },
      new InlineQueue(1),
      OWN_READER,
    );
    return this.reader;
  }

  /** Frees what this thread keeps for reading; it may not wait any more. Precondition: nobody reads. */
  close(): void {
    this.reader?.close();
    this.reader = undefined;
    if (this.isOwner) {
      closeFile(this.fd);
      const { directFd } = choiceOf(this.state);
      if (directFd >= 0) closeFile(directFd);
    }
    this.isOwner = false;
    this.isFinished = true;
  }

  isLoaded(start: number, end: number): boolean {
    return this.state.isLoaded(start, end);
  }

  /**
   * True if whoever awaits the range can be answered. Pages are counted after their bits: who awaited all of them finds all counted,
   * but for what a thread that died did not count.
   */
  private hasArrived(start: number, end: number): boolean {
    const { state } = this;
    return (
      state.isLoaded(start, end) &&
      !(isWhole(state.words, start, end) && this.isLoading && state.hasClaims())
    );
  }

  /** The error of a range that cannot be loaded, or undefined. */
  failureOf(start: number, end: number): Error | undefined {
    const page = this.state.failedPage(start, end);
    return page < 0 ? undefined : this.errorOf(page);
  }

  private errorOf(page: number): Error {
    const error = this.state.errorOf(page);
    const { extent, offset } = this.state.placeOf(page);
    const where = { path: this.path, section: "pages", offset };
    const what = `contents of extent ${extent}, memory offset ${page * PAGE_SIZE}`;
    if (error === ERROR_CHECKSUM)
      return new CorruptCheckpointError(`Checksum does not match the ${what}`, where);
    if (error === ERROR_SHORT)
      return new CorruptCheckpointError(`Pages file ends before the ${what}`, where);
    return new SyscallError("pread", error, this.path, `offset ${offset}`);
  }

  /**
   * Resolves when [start, end) is loaded; `urgent`: before what nobody waits for.
   * @throws what failed, or the signal's reason
   */
  async awaitLoad(
    start: number,
    end: number,
    urgent: boolean,
    signal?: AbortSignal,
  ): Promise<void> {
    signal?.throwIfAborted();
    if (this.hasArrived(start, end)) return;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const waiter: Waiter = { start, end, urgent, resolve, reject };
    const onAbort = () => {
      this.waiters.delete(waiter);
      reject(signal?.reason);
      wakeWaiters(this.control);
    };
    signal?.addEventListener("abort", onAbort, { once: true });
    this.state.countWaiter(start, end, 1);
    this.waiters.add(waiter);
    try {
      if (urgent) {
        this.want(waiter).catch((error: unknown) => {
          this.waiters.delete(waiter);
          reject(error);
        });
      }
      void this.pump();
      await promise;
    } finally {
      this.state.countWaiter(start, end, -1);
      signal?.removeEventListener("abort", onAbort);
    }
  }

  /** Has the demand thread read what a waiter waits for. While that is still starting, or there is none, this thread reads. */
  private async want(waiter: Waiter): Promise<void> {
    const { start, end } = waiter;
    while (!this.isServed && end - start <= OWN_READ_PAGES && this.waiters.has(waiter)) {
      if (this.ownReadMs < OWN_READ_MS) {
        this.readInTurn(start, end);
        break;
      }
      // A thread that has started by then may be quicker.
      this.state.demand(start, end);
      await new Promise((resolve) => setImmediate(resolve));
    }
    if (this.waiters.has(waiter) && !this.isLoaded(start, end)) this.state.demand(start, end);
  }

  private get isServed(): boolean {
    return Atomics.load(this.state.words, LoadWord.DemandServed) !== 0;
  }

  private readInTurn(start: number, end: number): void {
    if (this.ownReadMs === 0) {
      setImmediate(() => {
        this.ownReadMs = 0;
      });
    }
    const beganMs = performance.now();
    this.readNow(start, end);
    this.ownReadMs += performance.now() - beganMs;
  }

  /** Answers this thread's waiters whenever something has been loaded, as long as there are any. */
  private async pump(): Promise<void> {
    if (this.isPumping) return;
    this.isPumping = true;
    // A pending waitAsync does not keep the process alive; a timer does.
    const keepAlive = setInterval(() => {
      this.takeOverFromDead();
      // A thread may have died with a demand that it had taken, or before it woke those who wait.
      for (const { start, end, urgent } of this.waiters) if (urgent) this.state.demand(start, end);
      wakeWaiters(this.control);
    }, LIVENESS_CHECK_MS);
    const { words } = this.control;
    try {
      for (;;) {
        const seen = Atomics.load(words, Word.LoadProgress);
        this.answerWaiters();
        if (this.waiters.size === 0) return;
        reach("wait: looked at the bits");
        const wait = Atomics.waitAsync(words, Word.LoadProgress, seen);
        if (wait.async) await wait.value;
      }
    } finally {
      clearInterval(keepAlive);
      this.isPumping = false;
    }
  }

  private answerWaiters(): void {
    for (const waiter of this.waiters) {
      if (this.hasArrived(waiter.start, waiter.end)) {
        this.waiters.delete(waiter);
        waiter.resolve();
        continue;
      }
      const failure = this.failureOf(waiter.start, waiter.end) ?? this.stopFailure();
      if (failure === undefined) continue;
      this.waiters.delete(waiter);
      waiter.reject(failure);
    }
  }

  private stopFailure(): unknown {
    if (this.state.words[LoadWord.Stop] === 0) return undefined;
    if (this.stopReason !== undefined) return this.stopReason;
    if (Atomics.load(this.control.words, Word.Destroyed) !== 0)
      return new DestroyedError("MemoryFile", "awaitLoad()");
    return new DOMException("The load was ended by another thread", "AbortError");
  }

  /** Blocks this thread until [start, end) is loaded; reads what nobody reads yet itself. */
  awaitLoadSync(start: number, end: number): void {
    if (this.hasArrived(start, end)) return;
    const read = () => this.readNow(start, end);
    read();
    const isOver = () => {
      if (this.hasArrived(start, end)) return true;
      const failure = this.failureOf(start, end) ?? this.stopFailure();
      if (failure !== undefined) throw failure;
      return false;
    };
    this.sleepUntil(isOver, start, end, read);
  }

  /** Blocks this thread until `isOver`, which is asked when something of [start, end) has landed. Looks for the dead on the way. */
  private sleepUntil(
    isOver: () => boolean,
    start: number,
    end: number,
    afterLook = () => {},
  ): void {
    const { state } = this;
    const { words } = this.control;
    state.countWaiter(start, end, 1);
    try {
      for (let checkedMs = performance.now(); ; ) {
        const seen = Atomics.load(words, Word.LoadProgress);
        if (isOver()) return;
        reach("wait: looked at the bits");
        Atomics.wait(words, Word.LoadProgress, seen, LIVENESS_CHECK_MS);
        // By the clock: others may wake it more often than that.
        if (performance.now() < checkedMs + LIVENESS_CHECK_MS) continue;
        state.recoverDeadClaims();
        afterLook();
        checkedMs = performance.now();
      }
    } finally {
      state.countWaiter(start, end, -1);
    }
  }

  private readNow(start: number, end: number): void {
    const { words } = this.state;
    if (words[LoadWord.Stop] !== 0) return;
    // Nobody is to be woken for it, but the background pass gives way.
    Atomics.add(words, LoadWord.Demand, 1);
    const reader = this.ownReader();
    const last = Math.min(this.state.unitCount, Math.ceil(end / PAGES_PER_UNIT));
    for (let unit = Math.floor(start / PAGES_PER_UNIT); unit < last; unit++) {
      const from = Math.max(start, unit * PAGES_PER_UNIT);
      reader.readPages(unit, from, Math.min(end, (unit + 1) * PAGES_PER_UNIT));
    }
  }

  /** Ends the load early: what is not loaded never will be, and whoever waits for it is told `reason`. */
  abort(reason: unknown): void {
    this.stopReason = reason;
    this.requestStop();
    void this.pump();
  }

  /**
   * Drops [start, end): what nobody reads will not be read, and what is being read has landed when this returns.
   * Nothing of it is loaded, or failed, afterwards.
   */
  dropSync(start: number, end: number): void {
    this.sleepUntil(() => !this.state.cancel(this.control, start, end), start, end);
  }

  /** Tells every thread that loads or waits, in this thread and others, that what is not loaded never will be. */
  requestStop(): void {
    Atomics.store(this.state.words, LoadWord.Stop, 1);
    this.stopped.resolve();
    this.state.wakeDemand();
    wakeWaiters(this.control);
  }

  /** Stops loading; resolves when no thread started here touches the memory any more. */
  async stop(reason?: unknown): Promise<void> {
    this.stopReason ??= reason;
    this.requestStop();
    this.answerWaiters();
    await this.finished;
    await this.claimsRead();
    this.close();
  }

  get isLoading(): boolean {
    return Atomics.load(this.control.words, Word.Loading) !== 0 && this.state.isLoading;
  }

  stats(): LoadStats {
    const { words } = this.state;
    const failed = this.state.failedPage();
    const stopped = this.stopReason instanceof Error ? this.stopReason : null;
    const { queue, directFd } = choiceOf(this.state);
    return {
      isLoading: this.isLoading,
      totalBytes: words[LoadWord.ContentPages]! * PAGE_SIZE,
      loadedBytes: words[LoadWord.LoadedPages]! * PAGE_SIZE,
      failedBytes: words[LoadWord.FailedPages]! * PAGE_SIZE,
      demandBytes: words[LoadWord.DemandPages]! * PAGE_SIZE,
      hugeBytes: words[LoadWord.HugePages]! * PAGE_SIZE,
      // A thread may have died between the two counts.
      smallBytes:
        Math.max(0, words[LoadWord.LoadedPages]! - words[LoadWord.HugePages]!) * PAGE_SIZE,
      queue,
      isDirect: directFd >= 0,
      readCalls: words[LoadWord.ReadCalls]!,
      readsInFlightMax: words[LoadWord.MostInFlight]!,
      error: failed < 0 ? stopped : this.errorOf(failed),
    };
  }
}
