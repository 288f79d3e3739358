/**
 * Evictions: the users of a file in one thread that can give memory back, and when they are asked
 * to.
 *
 * A user's ranges are offsets of its own (those of a cache, for example), not of the file. Memory
 * that is marked evictable may be evicted at any time:
 *
 *   disabled  at once: in the next turn of the event loop
 *   manual    when a thread calls `startEvictions`
 *   enabled   when the host is short of memory (pressure.ts), or the file nears its limitBytes.
 *             On a host that does not report pressure: as soon as the file has no more waste to
 *             release ("idle", gVisor's choice without notifications)
 *
 * Once started, all ranges of all users are evicted, in all threads of the file (requests.ts). The
 * last range goes first, because a range that is used again is more likely to be at the beginning.
 * One user's evictions never overlap. A range stops being evictable when its user is asked to evict
 * it. Users belong to the thread that marked them, because callbacks cannot be shared.
 *
 * Source: MarkEvictable, startEvictionGoroutineLocked and ShouldCacheEvictable in gVisor's
 * pgalloc.go.
 */
import { checkInteger, showValue } from "../../ffi/index.ts";
import { type EvictionFailure, EvictionError } from "../errors/errors.ts";
import { type Control, Field, Word } from "../control/control.ts";
import { type PressureListener, type PressureWatch, watchPressure } from "./pressure.ts";
import { type EvictableRange, RangeList } from "./range-list.ts";
import { EvictionRequests } from "./requests.ts";

/** A part of the program that holds memory of a file and can live without it. */
export interface EvictableMemoryUser {
  /**
   * Asks the user to give up its `range`, usually by dropping its references. The user may decline,
   * and must keep memory that it uses again. It is not asked for the range again before the range
   * is marked again. While its promise is pending, the user is not asked for more. If it throws,
   * `waitForEvictions` rejects with an EvictionError.
   *
   * It is called in a turn of the event loop, or by `allocate` itself if the allocation would throw
   * OutOfMemoryError otherwise.
   */
  evict(range: EvictableRange): void | PromiseLike<void>;
}

export type DelayedEviction = "enabled" | "disabled" | "manual";

/**
 * The trigger of a file's evictions. `idle`: the host reports no pressure, for the given reason.
 */
export type EvictionTrigger =
  | { readonly kind: "pressure"; readonly path: string }
  | { readonly kind: "idle"; readonly reason: unknown }
  | { readonly kind: "immediate" }
  | { readonly kind: "manual" };

interface UserState {
  readonly ranges: RangeList;
  /** True while a turn that asks the user is due or under way. */
  evicting: boolean;
  /** The promise that the user returned last, while it is pending. */
  pending: Promise<void> | undefined;
}

interface Waiter {
  readonly resolve: () => void;
  readonly reject: (error: EvictionError) => void;
}

const TURN_MS = 2;
const WASTE_CHECK_MS = 5;
/** An allocation that leaves less than 1/8 of limitBytes starts evictions. */
const LIMIT_RATIO = 7 / 8;
/** A limit, because a user that always throws must not fill the memory that it should give back. */
const FAILURES_KEPT = 100;

export class Evictions {
  readonly mode: DelayedEviction;
  private readonly words: Int32Array<SharedArrayBuffer>;
  private readonly requests: EvictionRequests;
  private readonly nearLimitPages: number;
  private readonly users = new Map<EvictableMemoryUser, UserState>();
  private running = 0;
  private waiters: Waiter[] = [];
  private failures: EvictionFailure[] = [];
  private failureCount = 0;
  private watch: PressureWatch | undefined;
  /** Set once pressure cannot be watched, with the reason. */
  private unwatchable: { readonly reason: unknown } | undefined;
  private idleCheckDue = false;
  private isEvictingNow = false;
  private isClosed = false;

  /** @param slot this thread's slot among the file's participants */
  constructor(control: Control, slot: number, mode: DelayedEviction) {
    this.words = control.words;
    this.nearLimitPages = Math.floor(control.fields[Field.LimitPages]! * LIMIT_RATIO);
    this.mode = mode;
    this.requests = new EvictionRequests(control.words, slot, async () => {
      this.startAll();
      await this.idle();
    });
  }

  /** Begins to watch for pressure if this file waits for pressure. */
  get trigger(): EvictionTrigger {
    if (this.mode === "disabled") return { kind: "immediate" };
    if (this.mode === "manual") return { kind: "manual" };
    if (this.watch === undefined && this.unwatchable === undefined) this.startWatch();
    if (this.watch !== undefined) return { kind: "pressure", path: this.watch.path };
    return { kind: "idle", reason: this.unwatchable!.reason };
  }

  private startWatch(): void {
    const threshold = {
      stallMs: this.words[Word.PressureStallMs]!,
      windowMs: this.words[Word.PressureWindowMs]!,
    };
    const listener: PressureListener = {
      onPressure: () => this.startEverywhere(),
      onLost: (error) => {
        this.watch = undefined;
        this.unwatchable = { reason: error };
        this.evictWhenIdle();
      },
    };
    try {
      this.watch = watchPressure(threshold, listener);
    } catch (error) {
      // `trigger` reports the reason, and evictions start another way.
      this.unwatchable = { reason: error };
    }
  }

  /** True if evictions are delayed for so long that caching in evictable memory is worth it. */
  shouldCache(): boolean {
    const { kind } = this.trigger;
    return kind === "manual" || kind === "pressure";
  }

  markEvictable(user: EvictableMemoryUser, range: EvictableRange): void {
    checkUser(user);
    checkEvictableRange(range);
    let state = this.users.get(user);
    if (state === undefined) {
      state = { ranges: new RangeList(), evicting: false, pending: undefined };
      this.users.set(user, state);
    }
    state.ranges.add(range.start, range.end);
    this.requests.join();
    if (state.evicting) return;
    const { kind } = this.trigger;
    if (kind === "immediate") this.start(user, state);
    else if (kind === "idle") this.evictWhenIdle();
  }

  markUnevictable(user: EvictableMemoryUser, range: EvictableRange): void {
    checkUser(user);
    checkEvictableRange(range);
    const state = this.users.get(user);
    if (state === undefined) return;
    state.ranges.remove(range.start, range.end);
    if (!state.evicting && state.ranges.isEmpty) this.users.delete(user);
  }

  markAllUnevictable(user: EvictableMemoryUser): void {
    checkUser(user);
    const state = this.users.get(user);
    if (state === undefined) return;
    state.ranges.clear();
    if (!state.evicting) this.users.delete(user);
  }

  /**
   * Starts to evict everything that this thread's users marked, in later turns of the event loop.
   */
  private startAll(): void {
    for (const [user, state] of this.users) if (!state.evicting) this.start(user, state);
  }

  /**
   * Starts to evict everything that users in any thread marked, in later turns of their threads.
   */
  startEverywhere(): void {
    this.startAll();
    this.requests.send();
  }

  /**
   * Called before pages are allocated: starts evictions if the allocation brings the file near its
   * limit.
   */
  noteAllocation(pages: number): void {
    const { words } = this;
    if (words[Word.Evictable] === 0 || this.mode !== "enabled") return;
    if (words[Word.UsedPages]! + words[Word.WastePages]! + pages <= this.nearLimitPages) return;
    if (this.users.size > 0) this.startAll();
    this.requests.sendOnce();
  }

  private evictWhenIdle(): void {
    if (this.idleCheckDue || this.users.size === 0) return;
    this.idleCheckDue = true;
    const check = () => {
      if (!this.isClosed && this.words[Word.WastePages]! > this.words[Word.HeldPages]!) {
        setTimeout(check, WASTE_CHECK_MS);
        return;
      }
      this.idleCheckDue = false;
      this.startAll();
    };
    setImmediate(check);
  }

  private start(user: EvictableMemoryUser, state: UserState): void {
    if (this.isClosed) return;
    state.evicting = true;
    this.running++;
    setImmediate(() => void this.evictAll(user, state));
  }

  private async evictAll(user: EvictableMemoryUser, state: UserState): Promise<void> {
    let until = performance.now() + TURN_MS;
    while (!this.isClosed) {
      if (state.pending !== undefined) await state.pending;
      const range = this.isClosed ? null : state.ranges.takeLast();
      if (range === null) break;
      this.ask(user, state, range);
      if (state.pending === undefined && performance.now() < until) continue;
      await (state.pending ?? new Promise((resolve) => setImmediate(resolve)));
      until = performance.now() + TURN_MS;
    }
    this.users.delete(user);
    this.running--;
    if (this.running === 0) this.answerWaiters();
  }

  /** Asks the user for a range. `state.pending` is set until it has answered. */
  private ask(user: EvictableMemoryUser, state: UserState, range: EvictableRange): void {
    try {
      const answer = user.evict(range);
      if (answer === undefined) return;
      const pending = Promise.resolve(answer)
        .catch((error: unknown) => this.noteFailure({ user, range, error }))
        .then(() => {
          state.pending = undefined;
        });
      state.pending = pending;
    } catch (error) {
      this.noteFailure({ user, range, error });
    }
  }

  /**
   * Asks this thread's users for everything before it returns, for an allocation that would fail
   * otherwise. True if it asked for anything. Users with a pending promise are asked later. With
   * "manual" it evicts only ranges whose eviction was started.
   */
  evictNow(): boolean {
    // A user may allocate while it evicts.
    if (this.isEvictingNow) return false;
    this.isEvictingNow = true;
    let hasAsked = false;
    try {
      for (const [user, state] of this.users) {
        if (this.mode === "manual" && !state.evicting) continue;
        while (!this.isClosed && state.pending === undefined) {
          const range = state.ranges.takeLast();
          if (range === null) break;
          hasAsked = true;
          this.ask(user, state, range);
        }
        if (state.evicting || this.isClosed) continue;
        if (!state.ranges.isEmpty) this.start(user, state);
        else if (state.pending === undefined) this.users.delete(user);
      }
    } finally {
      this.isEvictingNow = false;
    }
    return hasAsked;
  }

  /**
   * Makes the other threads evict, for an allocation that would fail otherwise, and waits until
   * they have or `waitMs` are over. True if any thread was asked.
   */
  evictElsewhere(waitMs: number): boolean {
    return this.mode !== "manual" && this.requests.sendAndWait(waitMs);
  }

  private noteFailure(failure: EvictionFailure): void {
    this.failureCount++;
    if (this.failures.length < FAILURES_KEPT) this.failures.push(failure);
    // The next waiter receives the failures. There may never be one, so the first failure is
    // printed.
    if (this.waiters.length === 0 && this.failureCount === 1)
      process.emitWarning(new EvictionError([failure], 1));
  }

  /**
   * Resolves when no eviction is under way in any thread, or the file is destroyed.
   * @throws {EvictionError} if users of this thread threw, now or in evictions that had no waiter
   */
  async waitForAll(): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.waiters.push({ resolve, reject });
      if (this.running === 0 || this.isClosed) this.answerWaiters();
    });
    await this.requests.answered(() => this.isClosed);
  }

  /** True while a user of this thread evicts. */
  get isEvicting(): boolean {
    return this.running > 0;
  }

  /** Resolves when this thread is not evicting. */
  private async idle(): Promise<void> {
    while (this.running > 0 && !this.isClosed)
      await new Promise((resolve) => setImmediate(resolve));
  }

  private answerWaiters(): void {
    const { waiters, failures, failureCount } = this;
    if (waiters.length === 0) return;
    this.waiters = [];
    this.failures = [];
    this.failureCount = 0;
    const error = failureCount === 0 ? undefined : new EvictionError(failures, failureCount);
    for (const waiter of waiters) {
      if (error === undefined) waiter.resolve();
      else waiter.reject(error);
    }
  }

  /**
   * Called when the file has ended for this thread: no user is asked any more, and all waits end.
   */
  close(): void {
    this.isClosed = true;
    this.watch?.stop();
    this.watch = undefined;
    for (const [user, state] of this.users) {
      state.ranges.clear();
      if (!state.evicting) this.users.delete(user);
    }
    this.requests.leave();
    this.answerWaiters();
  }
}

function checkUser(user: EvictableMemoryUser): void {
  if (user === null || typeof user !== "object" || typeof user.evict !== "function") {
    throw new TypeError(`Expected user to have a method evict, got ${showValue(user)}`);
  }
}

function checkEvictableRange(range: EvictableRange): void {
  if (range === null || typeof range !== "object")
    throw new TypeError(`Expected range to have start and end, got ${showValue(range)}`);
  checkInteger("range.start", range.start);
  checkInteger("range.end", range.end, range.start);
}
