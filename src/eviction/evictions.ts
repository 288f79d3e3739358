/**
 * Evictions: one thread's users of a file who can give memory back, and when they are asked to.
 *
 * A user's ranges are offsets of its own (a cache's, not the file's). What is marked evictable may be evicted at any time:
 *
 *   disabled  at once: in the next turn of the event loop
 *   manual    when `startEvictions` is called
 *   enabled   when the host is short of memory (pressure.ts), or the file comes near its limitBytes. Where the host does
 *             not tell: as soon as the file has no more waste to release ("idle", gVisor's choice without notifications)
 *
 * Once started, all of a user's ranges are evicted, the last one first, since a range that is used again is more likely to
 * be at the beginning; one user's evictions never overlap. A range is no longer evictable when its user is asked to evict
 * it. Users are known to the thread that marked them, since callbacks cannot be shared.
 *
 * Source: MarkEvictable, startEvictionGoroutineLocked and ShouldCacheEvictable in gVisor's pgalloc.go.
 */
import { checkInteger } from "../../ffi/index.ts";
import { type EvictionFailure, EvictionError } from "../errors/errors.ts";
import { type Control, Field, Word } from "../control/control.ts";
import { type PressureListener, type PressureWatch, watchPressure } from "./pressure.ts";
import { type EvictableRange, RangeList } from "./range-list.ts";

/** Somebody who holds memory of a file that it can do without. */
export interface EvictableMemoryUser {
  /**
   * Asks the user to give up its `range`: to drop its references, as a rule. It need not; and it must ignore what it uses
   * again. The range is not asked for again before it is marked again. While a promise is pending the user is not asked
   * for more. What it throws is told by `waitForEvictions`.
   */
  evict(range: EvictableRange): void | PromiseLike<void>;
}

export type DelayedEviction = "enabled" | "disabled" | "manual";

/** What makes a file's evictions start. `idle`: the host tells of no pressure, for that reason. */
export type EvictionTrigger =
  | { readonly kind: "pressure"; readonly path: string }
  | { readonly kind: "idle"; readonly reason: unknown }
  | { readonly kind: "immediate" }
  | { readonly kind: "manual" };

interface UserState {
  readonly ranges: RangeList;
  evicting: boolean;
}

interface Waiter {
  readonly resolve: () => void;
  readonly reject: (error: EvictionError) => void;
}

const TURN_MS = 2;
const WASTE_CHECK_MS = 5;
/** An allocation that leaves less than 1/8 of limitBytes starts evictions. */
const LIMIT_RATIO = 7 / 8;
/** A user that always throws must not fill the memory that it should give back. */
const FAILURES_KEPT = 100;

export class Evictions {
  readonly mode: DelayedEviction;
  private readonly words: Int32Array<SharedArrayBuffer>;
  private readonly nearLimitPages: number;
  private readonly users = new Map<EvictableMemoryUser, UserState>();
  private running = 0;
  private waiters: Waiter[] = [];
  private failures: EvictionFailure[] = [];
  private failureCount = 0;
  private watch: PressureWatch | undefined;
  /** Set once pressure cannot be watched. */
  private unwatchable: { readonly reason: unknown } | undefined;
  private idleCheckDue = false;
  private isClosed = false;

  constructor(control: Control, mode: DelayedEviction) {
    this.words = control.words;
    this.nearLimitPages = Math.floor(control.fields[Field.LimitPages]! * LIMIT_RATIO);
    this.mode = mode;
  }

  /** Begins to watch for pressure, if that is what this file waits for. */
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
      onPressure: () => this.startAll(),
      onLost: (error) => {
        this.watch = undefined;
        this.unwatchable = { reason: error };
        this.evictWhenIdle();
      },
    };
    try {
      this.watch = watchPressure(threshold, listener);
    } catch (error) {
      // Not dropped: it stands in `trigger`, and evictions go on another way.
      this.unwatchable = { reason: error };
    }
  }

  /** True if evictions are put off for so long that caching in evictable memory is worth it. */
  shouldCache(): boolean {
    const { kind } = this.trigger;
    return kind === "manual" || kind === "pressure";
  }

  markEvictable(user: EvictableMemoryUser, range: EvictableRange): void {
    checkUser(user);
    checkEvictableRange(range);
    let state = this.users.get(user);
    if (state === undefined) {
      state = { ranges: new RangeList(), evicting: false };
      this.users.set(user, state);
    }
    state.ranges.add(range.start, range.end);
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

  /** Starts to evict everything, in later turns. */
  startAll(): void {
    for (const [user, state] of this.users) if (!state.evicting) this.start(user, state);
  }

  /** Pages are about to be allocated: starts evictions if that brings the file near its limit. */
  noteAllocation(pages: number): void {
    if (this.users.size === 0 || this.mode !== "enabled") return;
    if (this.words[Word.UsedPages]! + this.words[Word.WastePages]! + pages > this.nearLimitPages)
      this.startAll();
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
    for (
      let range = state.ranges.takeLast();
      range !== null && !this.isClosed;
      range = state.ranges.takeLast()
    ) {
      try {
        const pending = user.evict(range);
        if (pending !== undefined) await pending;
      } catch (error) {
        this.noteFailure({ user, range, error });
      }
      if (performance.now() < until) continue;
      await new Promise((resolve) => setImmediate(resolve));
      until = performance.now() + TURN_MS;
    }
    this.users.delete(user);
    this.running--;
    if (this.running === 0) this.settle();
  }

  private noteFailure(failure: EvictionFailure): void {
    this.failureCount++;
    if (this.failures.length < FAILURES_KEPT) this.failures.push(failure);
    // It is kept for whoever waits next; but nobody may ever wait, so the first is shown.
    if (this.waiters.length === 0 && this.failureCount === 1)
      process.emitWarning(new EvictionError([failure], 1));
  }

  /** Resolves when no eviction is under way. @throws {EvictionError} if users threw, in these evictions or unwaited ones before */
  async waitForAll(): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.waiters.push({ resolve, reject });
      if (this.running === 0) this.settle();
    });
  }

  private settle(): void {
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

  /** The file is gone for this thread: nobody is asked any more. */
  close(): void {
    this.isClosed = true;
    this.watch?.stop();
    this.watch = undefined;
    for (const [user, state] of this.users) {
      state.ranges.clear();
      if (!state.evicting) this.users.delete(user);
    }
  }
}

function checkUser(user: EvictableMemoryUser): void {
  if (user === null || typeof user !== "object" || typeof user.evict !== "function") {
    throw new TypeError(
      `Expected user to have a method evict, got ${user === null ? "null" : typeof user}`,
    );
  }
}

function checkEvictableRange(range: EvictableRange): void {
  if (range === null || typeof range !== "object")
    throw new TypeError(`Expected range to have start and end, got ${range}`);
  checkInteger("range.start", range.start);
  checkInteger("range.end", range.end, range.start);
}
