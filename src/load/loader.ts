/**
 * Loader: one thread's handle on a load. It answers whether pages are loaded, waits, cancels, and
 * runs the load, or takes the run over from a thread that died.
 *
 * Any thread may run a load. LoadWord.Runner names it while a run is under way, and changes by
 * compare-exchange: from 0, or from a dead thread. After a run the thread sets it to 0 and looks
 * for pages that have become pending meanwhile. A thread that makes pages pending looks for the
 * runner afterwards. So one of the two sees the other.
 *
 * The load holds its source until all is loaded, or the file is destroyed and no claim is left.
 * LoadWord.Released changes once, so that exactly one thread ends the hold.
 */
import { DestroyedError } from "../errors/errors.ts";
import { type Control, openControl, wakeWaiters, Word } from "../control/control.ts";
import { isThreadAlive, THREAD_ID } from "../threads/thread.ts";
import { releaseSource } from "../source/describe.ts";
import { canBlock } from "../source/open.ts";
import { correctCounts, hasClaims, recoverDeadClaims } from "./dead-threads.ts";
import { failureOf } from "./failures.ts";
import { type LoadStats, QUEUES, statsOf } from "./load-stats.ts";
import { LoadState } from "./load-state.ts";
import { type LoadHandle, LoadWord } from "./load-tables.ts";
import type { LoadEntry } from "./open-load.ts";
import { restartOrder } from "./order.ts";
import { OwnReads } from "./own-reads.ts";
import { claimsRead, readBeside, type Runnable, runLoads } from "./run.ts";
import { openUses, type UseRecord } from "./use-record.ts";
import { Waiters } from "./waiters.ts";

const INLINE = QUEUES.indexOf("inline");

export interface LoaderOptions {
  readonly control: Control;
  readonly state: LoadState;
  /** Address of page 0. */
  readonly base: number;
}

export class Loader implements Runnable {
  readonly state: LoadState;
  readonly control: Control;
  readonly entry: LoadEntry;
  private readonly ownReads: OwnReads | null;
  private readonly waiters: Waiters;
  private readonly ended = Promise.withResolvers<void>();
  /** Resolves when a run by this thread has ended for the first time. */
  readonly finished: Promise<void> = this.ended.promise;
  /** The reason why this thread has stopped the load. */
  private stopReason: unknown;
  /** Null if the program's uses are not recorded, or not any more. */
  private recording: UseRecord | null;

  constructor({ control, state, base }: LoaderOptions) {
    this.control = control;
    this.state = state;
    this.entry = { control: control.buffer, state: state.handle, base };
    this.recording = openUses(state.handle);
    const isBlocking = canBlock(state.handle.source);
    this.ownReads = isBlocking ? new OwnReads({ control, state, base }) : null;
    this.waiters = new Waiters({
      control,
      state,
      ownReads: this.ownReads,
      stopFailure: () => this.stopFailure(),
      checkThreads: () => this.takeOverFromDead(),
    });
  }

  /** The loader of a load that another thread began. */
  static attach(handle: LoadHandle, control: SharedArrayBuffer, base: number): Loader {
    return new Loader({ control: openControl(control), state: new LoadState(handle), base });
  }

  get isInline(): boolean {
    return this.state.words[LoadWord.Queue] === INLINE;
  }

  /** Makes this thread the runner, unless a living thread runs the load. */
  private becomeRunner(): boolean {
    const { words } = this.state;
    const runner = Atomics.load(words, LoadWord.Runner);
    if (runner !== 0 && isThreadAlive(runner)) return false;
    return Atomics.compareExchange(words, LoadWord.Runner, runner, THREAD_ID) === runner;
  }

  /**
   * Runs loads of one group in their order, in this thread's name. Resolves when no thread started
   * here reads any more.
   */
  static async run(loaders: readonly Loader[]): Promise<void> {
    const own: Loader[] = [];
    for (const loader of loaders) {
      loader.releaseIfDone();
      if (!loader.state.isLoading) loader.ended.resolve();
      else if (loader.becomeRunner()) own.push(loader);
    }
    if (own.length === 0) return;
    await runLoads(own);
    const again: Loader[] = [];
    for (const loader of own) {
      Atomics.store(loader.state.words, LoadWord.Runner, 0);
      if (loader.state.isLoading) again.push(loader);
      else loader.releaseIfDone();
      loader.ended.resolve();
    }
    await Loader.run(again);
  }

  /** Repairs the remains of dead threads: their claims, and the run itself. */
  private takeOverFromDead(): void {
    const { state, control } = this;
    const { words } = state;
    recoverDeadClaims(state);
    const runner = Atomics.load(words, LoadWord.Runner);
    if (runner === THREAD_ID || !state.isLoading || (runner !== 0 && isThreadAlive(runner))) return;
    correctCounts(state, control);
    restartOrder(words);
    void Loader.run([this]);
  }

  /**
   * Reads in this thread, too, for a runner that may be blocked. Does nothing if the source needs
   * an event loop. Resolves when this thread does not read any more.
   */
  async help(): Promise<void> {
    if (this.state.isLoading && canBlock(this.state.handle.source)) await readBeside(this);
    this.releaseIfDone();
  }

  /** Ends the hold of the source if no thread can need it any more. */
  private releaseIfDone(): void {
    if (this.state.isComplete) this.release();
  }

  private release(): void {
    if (Atomics.compareExchange(this.state.words, LoadWord.Released, 0, 1) !== 0) return;
    releaseSource(this.state.handle.source);
  }

  /**
   * Makes the failed pages of [start, end) pending again, and continues an aborted load. Resolves
   * when that is under way; await the range then.
   */
  async retry(start: number, end: number): Promise<void> {
    const { words } = this.state;
    if (Atomics.load(words, LoadWord.Stop) !== 0) {
      await claimsRead(this.state);
      await this.ownRunEnds();
      if (this.control.words[Word.Destroyed] !== 0) return;
      this.stopReason = undefined;
      restartOrder(words);
      Atomics.store(words, LoadWord.Stop, 0);
      // A thread that destroys sets Destroyed and then Stop: one of the two sees the other.
      if (Atomics.load(this.control.words, Word.Destroyed) !== 0) return this.requestStop();
      // Pages that became wanted while the load was stopped.
      this.state.demands.ring();
    }
    this.state.retry(start, end);
    if (this.state.isLoading) void Loader.run([this]);
  }

  /**
   * Waits until all threads of this thread's stopped run have left. If one of them saw the stop and
   * another did not, the run would go on without the first.
   */
  private async ownRunEnds(): Promise<void> {
    const { words } = this.state;
    const isEnding = () =>
      Atomics.load(words, LoadWord.Runner) === THREAD_ID &&
      Atomics.load(words, LoadWord.Stop) !== 0;
    while (isEnding()) await new Promise((resolve) => setTimeout(resolve, 1));
  }

  /** True when no thread can touch the memory for this load any more. */
  get isFinished(): boolean {
    return !this.state.isLoading && !hasClaims(this.state);
  }

  /**
   * Frees this thread's resources of the load. Precondition: the file is destroyed, `isFinished`.
   */
  close(): void {
    this.ownReads?.close();
    this.release();
  }

  /** True while this thread waits for pages. */
  get hasWaiters(): boolean {
    return this.waiters.hasAny;
  }

  /** True while the program's uses are recorded. */
  get isRecording(): boolean {
    return this.recording !== null;
  }

  /** The program uses pages [start, end), waits for them, or misses them. */
  noteUse(start: number, end: number): void {
    if (this.recording === null) return;
    if (this.recording.isOver) this.recording = null;
    else this.recording.note(start, end);
  }

  isLoaded(start: number, end: number): boolean {
    return this.state.isLoaded(start, end);
  }

  /** The error of a range that cannot be loaded, or undefined. */
  failureOf(start: number, end: number): Error | undefined {
    return failureOf(this.state, start, end);
  }

  /**
   * Resolves when [start, end) is loaded. `isUrgent`: before the background pass reaches it.
   * @throws the error of the range, or the signal's reason
   */
  awaitLoad(start: number, end: number, isUrgent: boolean, signal?: AbortSignal): Promise<void> {
    return this.waiters.wait(start, end, isUrgent, signal);
  }

  /**
   * Blocks this thread until [start, end) is loaded. Reads pages itself that no thread reads yet.
   */
  awaitLoadSync(start: number, end: number): void {
    this.waiters.waitSync(start, end);
  }

  private stopFailure(): unknown {
    if (this.state.words[LoadWord.Stop] === 0) return undefined;
    if (this.stopReason !== undefined) return this.stopReason;
    if (Atomics.load(this.control.words, Word.Destroyed) !== 0)
      return new DestroyedError("MemoryFile", "awaitLoad()", true);
    return new DOMException("The load was ended by another thread", "AbortError");
  }

  /** Ends the load early: missing pages are never loaded, and waiters get `reason`. */
  abort(reason: unknown): void {
    this.stopReason = reason;
    this.requestStop();
    this.waiters.answer();
  }

  /**
   * Drops [start, end): pages that no thread reads will not be read, and reads under way have ended
   * when this returns. Afterwards none of them is loaded or failed.
   */
  dropSync(start: number, end: number): void {
    const { state, control } = this;
    this.waiters.sleepUntil(() => !state.cancel(control, start, end), start, end);
  }

  /** Signals every thread that loads or waits that missing pages are never loaded. */
  requestStop(): void {
    Atomics.store(this.state.words, LoadWord.Stop, 1);
    this.state.group.wake();
    wakeWaiters(this.control);
  }

  /** Stops loading. Resolves when no thread touches the memory for this load any more. */
  async stop(reason?: unknown): Promise<void> {
    this.stopReason ??= reason;
    this.requestStop();
    this.waiters.answer();
    await claimsRead(this.state);
    this.close();
  }

  get isLoading(): boolean {
    return Atomics.load(this.control.words, Word.Loading) !== 0 && this.state.isLoading;
  }

  stats(): LoadStats {
    const stopped = this.stopReason instanceof Error ? this.stopReason : null;
    return statsOf(this.state, this.isLoading, stopped);
  }
}
