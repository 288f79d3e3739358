/**
 * Waiters: one thread's waits for pages of a load.
 *
 * A thread that may block reads missing pages itself, and waits only for pages that others have
 * claimed. A thread that may not (awaitLoad) lets the demand thread read them, and sleeps in one
 * `Atomics.waitAsync` for any number of waiters.
 */
import { type Control, wakeWaiters, Word } from "../control/control.ts";
import { reach } from "../control/interleave.ts";
import { hasClaims, recoverDeadClaims } from "./dead-threads.ts";
import { failureOf } from "./failures.ts";
import type { LoadState } from "./load-state.ts";
import { isWhole } from "./load-tables.ts";
import { LIVENESS_CHECK_MS } from "./load-task.ts";
import { OWN_READ_PAGES, type OwnReads } from "./own-reads.ts";

interface Waiter {
  readonly start: number;
  readonly end: number;
  readonly isUrgent: boolean;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

export interface WaitersOptions {
  readonly control: Control;
  readonly state: LoadState;
  /** Null if the source needs an event loop: then only loading threads read. */
  readonly ownReads: OwnReads | null;
  /** The reason why the load has stopped, or undefined. */
  readonly stopFailure: () => unknown;
  /** Called from time to time while there are waiters: repairs the remains of dead threads. */
  readonly checkThreads: () => void;
}

export class Waiters {
  private readonly options: WaitersOptions;
  private readonly control: Control;
  private readonly state: LoadState;
  private readonly waiters = new Set<Waiter>();
  private isPumping = false;

  constructor(options: WaitersOptions) {
    this.options = options;
    this.control = options.control;
    this.state = options.state;
  }

  get hasAny(): boolean {
    return this.waiters.size > 0;
  }

  /**
   * True if a waiter for the range can be answered. Pages are counted after their bits are set. A
   * waiter for all pages is answered when all are counted, except those that a dead thread did not
   * count.
   */
  private hasArrived(start: number, end: number): boolean {
    const { state } = this;
    if (!state.isLoaded(start, end)) return false;
    if (!isWhole(state.words, start, end)) return true;
    const isLoading = Atomics.load(this.control.words, Word.Loading) !== 0 && state.isLoading;
    return !(isLoading && hasClaims(state));
  }

  /** The reason why the range will not be loaded, or undefined. */
  private failure(start: number, end: number): unknown {
    return failureOf(this.state, start, end) ?? this.options.stopFailure();
  }

  /**
   * Resolves when [start, end) is loaded. `isUrgent`: before the background pass reaches it.
   * @throws the error of the range, or the signal's reason
   */
  async wait(start: number, end: number, isUrgent: boolean, signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    if (this.hasArrived(start, end)) return;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const waiter: Waiter = { start, end, isUrgent, resolve, reject };
    const onAbort = () => {
      this.waiters.delete(waiter);
      reject(signal?.reason);
      wakeWaiters(this.control);
    };
    signal?.addEventListener("abort", onAbort, { once: true });
    this.state.countWaiter(start, end, 1);
    this.waiters.add(waiter);
    try {
      if (isUrgent) {
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

  /**
   * Makes the demand thread read a waiter's pages. Until one serves, this thread reads: a short
   * range, and any range of a load that has no threads yet.
   */
  private async want(waiter: Waiter): Promise<void> {
    const { start, end } = waiter;
    const { state } = this;
    const { ownReads } = this.options;
    const { group } = state;
    const isShort = end - start <= OWN_READ_PAGES;
    const isOwn = () => !group.isServed && (isShort || group.isQueued) && this.waiters.has(waiter);
    for (let at = start; ownReads !== null && at < end && isOwn(); ) {
      if (ownReads.hasTime) {
        const next = isShort ? end : Math.min(end, at + OWN_READ_PAGES);
        ownReads.readInTurn(at, next);
        at = next;
        continue;
      }
      // A thread that has started by then may be faster.
      state.demands.demand(start, end);
      await new Promise((resolve) => setImmediate(resolve));
    }
    if (this.waiters.has(waiter) && !state.isLoaded(start, end)) state.demands.demand(start, end);
  }

  /** Answers this thread's waiters whenever pages were loaded, while there are any. */
  async pump(): Promise<void> {
    if (this.isPumping) return;
    this.isPumping = true;
    // A pending waitAsync does not keep the process alive; a timer does.
    const keepAlive = setInterval(() => {
      this.options.checkThreads();
      // A thread may have died with a demand that it had taken, or before it woke the waiters.
      for (const { start, end, isUrgent } of this.waiters)
        if (isUrgent) this.state.demands.demand(start, end);
      wakeWaiters(this.control);
    }, LIVENESS_CHECK_MS);
    const { words } = this.control;
    try {
      for (;;) {
        const seen = Atomics.load(words, Word.LoadProgress);
        this.answer();
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

  /** Answers the waiters whose pages are decided. */
  answer(): void {
    for (const waiter of this.waiters) {
      if (this.hasArrived(waiter.start, waiter.end)) {
        this.waiters.delete(waiter);
        waiter.resolve();
        continue;
      }
      const failure = this.failure(waiter.start, waiter.end);
      if (failure === undefined) continue;
      this.waiters.delete(waiter);
      waiter.reject(failure);
    }
  }

  /**
   * Blocks this thread until [start, end) is loaded. Reads pages that no thread reads yet, if it
   * can.
   */
  waitSync(start: number, end: number): void {
    if (this.hasArrived(start, end)) return;
    const { ownReads } = this.options;
    const read = () =>
      ownReads === null ? this.state.demands.demand(start, end) : ownReads.read(start, end);
    read();
    const isOver = () => {
      if (this.hasArrived(start, end)) return true;
      const failure = this.failure(start, end);
      if (failure !== undefined) throw failure;
      return false;
    };
    this.sleepUntil(isOver, start, end, read);
  }

  /**
   * Blocks this thread until `isOver`, which is called when pages of [start, end) were loaded.
   * Repairs the remains of dead threads meanwhile.
   */
  sleepUntil(isOver: () => boolean, start: number, end: number, afterLook = () => {}): void {
    const { state } = this;
    const { words } = this.control;
    state.countWaiter(start, end, 1);
    try {
      for (let checkedMs = performance.now(); ; ) {
        const seen = Atomics.load(words, Word.LoadProgress);
        if (isOver()) return;
        reach("wait: looked at the bits");
        Atomics.wait(words, Word.LoadProgress, seen, LIVENESS_CHECK_MS);
        // By the clock, because others may wake it more often than that.
        if (performance.now() < checkedMs + LIVENESS_CHECK_MS) continue;
        recoverDeadClaims(state);
        afterLook();
        checkedMs = performance.now();
      }
    } finally {
      state.countWaiter(start, end, -1);
    }
  }
}
