/**
 * Stops: all threads of a file pause for an instant, so that one thread can read memory that no
 * other changes.
 *
 * A thread is *still* while it touches no memory of the file: it has stopped, it sleeps in a wait
 * of this library, or it runs work that the program has declared to touch nothing (`parked`). A
 * running thread becomes still between two turns of its event loop or at a safepoint, and never
 * inside another call. Threads that are exempt (they only read) are never asked.
 *
 * A stop (1) moves Word.Stop from 0 to the stopping thread, (2) reads the states of all
 * participants, and waits until none is running. A thread that continues (1) stores Running, (2)
 * reads Word.Stop, and is still again unless it is 0. So the thread sees the stop, or the stop sees
 * it running. A thread that becomes still during a stop changes StopProgress and wakes the stopping
 * thread.
 *
 * No two stops wait for each other. A thread is still, for all of its files, while it waits for a
 * stop to begin, for its own stop to be complete and for another's to be over. It runs again for
 * all of its files at once, or for none. Stops of one file follow one another. A stop of several
 * files takes their words in the order of their ids. The work of a stop may touch only the stop's
 * files.
 *
 * Deaths: a waiting thread checks from time to time that the thread it waits for still lives. A
 * dead participant counts as still. The first thread that sees a dead stopper clears its word.
 */
import { checkFunction } from "../../ffi/index.ts";
import { assert, StopTimeoutError } from "../errors/errors.ts";
import { isThreadAlive, THREAD_ID, threadNumber } from "../threads/thread.ts";
import {
  type Control,
  Field,
  MAX_PARTICIPANTS,
  ParticipantState,
  ParticipantWord,
  Word,
} from "./control.ts";
import { reach } from "./interleave.ts";
import { slotWord } from "./participants.ts";

const LIVENESS_CHECK_MS = 20;
/**
 * Threads between two turns of the event loop stop in 0.1 ms. A dead thread should not delay a stop
 * much more.
 */
const FIRST_CHECK_MS = 1;

/** Threads that this one has found dead. They keep their slots until another thread needs one. */
const dead = new Set<number>();
const MAX_DEAD = 1000;

/** This thread's parts in its files' stops. */
const parts = new Set<StopPart>();
/** How many waits of the library this thread is in. Meanwhile it is still for all its files. */
let waits = 0;

/** One thread's part in the stops of one file, from `begin` until `end`. */
export class StopPart {
  readonly words: Int32Array<SharedArrayBuffer>;
  private readonly at: number;
  /** How many calls of `parked` this thread is in. */
  private parks = 0;

  constructor(control: Control, slot: number) {
    this.words = control.words;
    this.at = slotWord(slot) + ParticipantWord.State;
  }

  /** This thread may write to the memory from now on. */
  begin(): void {
    if (parts.has(this)) return;
    parts.add(this);
    runAgain();
  }

  /** This thread does not write to the memory any more. */
  end(): void {
    parts.delete(this);
    this.setState(ParticipantState.Exempt);
  }

  /** Between two steps of the program: stops here while another thread asks for it. */
  safepoint(): void {
    const stopper = Atomics.load(this.words, Word.Stop);
    if (stopper !== 0 && stopper !== THREAD_ID && parts.has(this)) whileStill(() => {});
  }

  /** Runs `work`, which touches nothing of the file: this thread need not stop meanwhile. */
  parked<T>(work: () => T): T {
    checkFunction("work", work);
    this.parks++;
    this.setState(parts.has(this) ? ParticipantState.Still : ParticipantState.Exempt);
    try {
      return work();
    } finally {
      this.parks--;
      runAgain();
    }
  }

  get mustBeStill(): boolean {
    return this.parks > 0 || waits > 0;
  }

  /** The thread that asks this one to stop, or 0. */
  get stopper(): number {
    const stopper = Atomics.load(this.words, Word.Stop);
    return stopper === THREAD_ID ? 0 : stopper;
  }

  setState(state: number): void {
    Atomics.store(this.words, this.at, state);
    if (state === ParticipantState.Running || Atomics.load(this.words, Word.Stop) === 0) return;
    Atomics.add(this.words, Word.StopProgress, 1);
    Atomics.notify(this.words, Word.StopProgress);
  }
}

/** Runs `wait`, in which this thread sleeps and touches no file, so stops do not wait for it. */
export function whileStill<T>(wait: () => T): T {
  waits++;
  for (const part of parts) part.setState(ParticipantState.Still);
  try {
    return wait();
  } finally {
    waits--;
    runAgain();
  }
}

/**
 * Makes this thread run again for all files in which it need not be still, or sleeps until it may.
 */
function runAgain(): void {
  if (waits > 0) return;
  for (;;) {
    const mayRun = [...parts].filter((part) => !part.mustBeStill);
    for (const part of mayRun) part.setState(ParticipantState.Running);
    reach("stop: running again");
    const stopped = mayRun.find((part) => part.stopper !== 0);
    if (stopped === undefined) return;
    for (const part of mayRun) part.setState(ParticipantState.Still);
    sleepWhileStopped(stopped.words);
  }
}

function sleepWhileStopped(words: Int32Array): void {
  for (;;) {
    const stopper = Atomics.load(words, Word.Stop);
    if (stopper === 0 || stopper === THREAD_ID) return;
    if (Atomics.wait(words, Word.Stop, stopper, LIVENESS_CHECK_MS) === "timed-out")
      clearIfDead(words, stopper);
  }
}

function clearIfDead(words: Int32Array, stopper: number): void {
  if (isThreadAlive(stopper)) return;
  if (Atomics.compareExchange(words, Word.Stop, stopper, 0) === stopper)
    Atomics.notify(words, Word.Stop);
}

export interface StopOptions {
  /** How long to wait for running threads. */
  readonly timeoutMs: number;
}

/**
 * Stops all other threads of the files, runs `work` and lets the threads continue. Returns the
 * result of `work`, and how long the others may have been stopped. This thread blocks until all
 * have stopped.
 *
 * @throws {StopTimeoutError} naming the threads that did not stop; `work` did not run
 */
export function whileStopped<T>(
  controls: readonly Control[],
  options: StopOptions,
  work: () => T,
): { value: T; pauseMs: number } {
  // A file without a handle has no other thread.
  const shared = controls
    .filter(({ words }) => Atomics.load(words, Word.Shared) !== 0)
    .sort((a, b) => a.fields[Field.FileId]! - b.fields[Field.FileId]!);
  const deadlineMs = performance.now() + options.timeoutMs;
  const taken: Control[] = [];
  let beganMs = performance.now();
  const run = () => {
    try {
      for (const control of shared) {
        takeStop(control.words, deadlineMs, options.timeoutMs);
        if (taken.length === 0) beganMs = performance.now();
        taken.push(control);
      }
      // Threads that wait for a file's end wake up by this, and look for a stop (participants.ts).
      for (const { words } of taken) Atomics.notify(words, Word.Destroyed);
      for (const { words } of taken) awaitStill(words, deadlineMs, options.timeoutMs);
      reach("stop: all are still");
      return work();
    } finally {
      const owners = taken.map(({ words }) => releaseStop(words));
      const other = owners.find((owner) => owner !== THREAD_ID);
      assert(other === undefined, () => `the stop of thread ${THREAD_ID} was that of ${other}`);
    }
  };
  const value = shared.length === 0 ? work() : whileStill(run);
  return { value, pauseMs: performance.now() - beganMs };
}

function takeStop(words: Int32Array, deadlineMs: number, timeoutMs: number): void {
  for (;;) {
    const owner = Atomics.compareExchange(words, Word.Stop, 0, THREAD_ID);
    if (owner === 0) return;
    const leftMs = deadlineMs - performance.now();
    if (leftMs <= 0) throw new StopTimeoutError([threadNumber(owner)], timeoutMs);
    const waitMs = Math.min(leftMs, LIVENESS_CHECK_MS);
    if (Atomics.wait(words, Word.Stop, owner, waitMs) === "timed-out") clearIfDead(words, owner);
  }
}

/** Returns the stop's owner. */
function releaseStop(words: Int32Array): number {
  const owner = Atomics.exchange(words, Word.Stop, 0);
  Atomics.notify(words, Word.Stop);
  return owner;
}

function awaitStill(words: Int32Array, deadlineMs: number, timeoutMs: number): void {
  for (let checkMs = FIRST_CHECK_MS; ; checkMs = LIVENESS_CHECK_MS) {
    const seen = Atomics.load(words, Word.StopProgress);
    const running = runningThreads(words);
    if (running.length === 0) return;
    const leftMs = deadlineMs - performance.now();
    if (leftMs <= 0) {
      noteDead(running);
      const late = running.filter((thread) => !dead.has(thread));
      if (late.length > 0) throw new StopTimeoutError(late.map(threadNumber), timeoutMs);
    } else if (
      Atomics.wait(words, Word.StopProgress, seen, Math.min(leftMs, checkMs)) === "timed-out"
    )
      noteDead(running);
  }
}

/** Threads other than this one that are neither still nor exempt nor known to be dead. */
function runningThreads(words: Int32Array): number[] {
  const threads: number[] = [];
  for (let slot = 0; slot < MAX_PARTICIPANTS; slot++) {
    const at = slotWord(slot);
    const thread = Atomics.load(words, at + ParticipantWord.Thread);
    if (thread === 0 || thread === THREAD_ID) continue;
    if (Atomics.load(words, at + ParticipantWord.State) !== ParticipantState.Running) continue;
    if (!dead.has(thread)) threads.push(thread);
  }
  return threads;
}

function noteDead(threads: readonly number[]): void {
  if (dead.size > MAX_DEAD) dead.clear();
  for (const thread of threads) if (!isThreadAlive(thread)) dead.add(thread);
}
