/**
 * The threads that may touch a file's memory. The last thread to leave after the file was destroyed
 * unmaps it.
 *
 * A thread takes a slot before it touches the memory or the tables, and then reads whether the file
 * is destroyed. `destroy` marks the file and then reads the slots. Both are sequentially
 * consistent: either the thread sees the mark and leaves, or the unmapping thread sees the slot.
 *
 * After the mark, each thread leaves at its next call or turn of the event loop: it detaches its
 * views and clears its slot. The thread that then finds no slot of a living thread moves
 * Word.Destroyed from 1 to 2, once, and unmaps. A thread that died has left. A thread that does not
 * respond keeps the memory mapped; the library reports that once.
 */
import { assert, TooManyThreadsError } from "../errors/errors.ts";
import {
  type Control,
  MAX_PARTICIPANTS,
  PARTICIPANT_WORDS,
  ParticipantState,
  ParticipantWord,
  Word,
} from "./control.ts";
import { reach } from "./interleave.ts";
import { isThreadAlive, THREAD_ID } from "../threads/thread.ts";

const POLL_MS = 20;
const WARN_AFTER_MS = 2000;

/** Index of the first word of slot `slot`. */
export function slotWord(slot: number): number {
  return Word.Participants + slot * PARTICIPANT_WORDS;
}

/**
 * Takes a slot for this thread. The memory stays mapped until `freeSlot` or this thread's death.
 * The caller then reads Word.Destroyed, and touches nothing if it is set.
 *
 * @throws {TooManyThreadsError}
 */
export function takeSlot(words: Int32Array): number {
  for (const fromDead of [false, true]) {
    for (let slot = 0; slot < MAX_PARTICIPANTS; slot++) {
      const at = slotWord(slot);
      const owner = Atomics.load(words, at + ParticipantWord.Thread);
      if (owner !== 0 && !(fromDead && isLeftBehind(words, at, owner))) continue;
      // Before the slot is taken, because taking it removes the trace of the dead thread.
      if (owner !== 0) noteDeath(words);
      if (Atomics.compareExchange(words, at + ParticipantWord.Thread, owner, THREAD_ID) !== owner)
        continue;
      Atomics.store(words, at + ParticipantWord.HasEvictable, 0);
      Atomics.store(words, at + ParticipantWord.State, ParticipantState.Exempt);
      return slot;
    }
  }
  throw new TooManyThreadsError(MAX_PARTICIPANTS);
}

/**
 * True for the slot of a dead thread, unless it records pages that the thread was releasing: they
 * are still waste.
 */
function isLeftBehind(words: Int32Array, at: number, owner: number): boolean {
  return words[at + ParticipantWord.ReleaseEnd] === 0 && !isThreadAlive(owner);
}

/** This thread does not touch the memory any more. */
export function freeSlot(words: Int32Array, slot: number): void {
  const owner = Atomics.exchange(words, slotWord(slot) + ParticipantWord.Thread, 0);
  assert(owner === THREAD_ID, () => `thread ${THREAD_ID} freed slot ${slot} of thread ${owner}`);
}

/** True while a living thread has a slot. */
export function hasParticipants(words: Int32Array): boolean {
  for (let slot = 0; slot < MAX_PARTICIPANTS; slot++) {
    const owner = Atomics.load(words, slotWord(slot) + ParticipantWord.Thread);
    if (owner === 0) continue;
    if (isThreadAlive(owner)) return true;
    noteDeath(words);
  }
  return false;
}

/**
 * Records that a thread died without leaving the file. Its views died with it, but not the buffers
 * that it may have transferred to other threads (memory/views.ts).
 */
function noteDeath(words: Int32Array): void {
  Atomics.store(words, Word.Escaped, 1);
}

/**
 * Makes the calling thread the one that unmaps a destroyed file: "own". Returns "in use" if a
 * living thread has not left the file, "taken" if another thread unmaps it.
 */
export function takeUnmapping(words: Int32Array): "own" | "in use" | "taken" {
  if (hasParticipants(words)) return "in use";
  reach("leave: found no slot in use");
  const isOwn = Atomics.compareExchange(words, Word.Destroyed, 1, 2) === 1;
  return isOwn ? "own" : "taken";
}

/** Calls that the thread receives in its own turns of the event loop. */
export interface ParticipantCalls {
  /** Some thread has destroyed the file. */
  readonly onDestroyed: () => void;
  /** Some thread may have asked the others to stop (stops.ts). */
  readonly onStop: () => void;
}

/** One thread's record among the participants, from its slot to its leaving. */
export class Participants {
  readonly slot: number;
  private readonly words: Int32Array<SharedArrayBuffer>;
  private readonly what: string;

  /** @param slot this thread's slot */
  constructor(control: Control, slot: number, what: string, calls: ParticipantCalls) {
    this.words = control.words;
    this.slot = slot;
    this.what = what;
    this.watch(calls);
  }

  /** One wait serves both calls: a stop notifies the word without changing it. */
  private watch(calls: ParticipantCalls): void {
    const wait = Atomics.waitAsync(this.words, Word.Destroyed, 0);
    if (!wait.async) {
      queueMicrotask(calls.onDestroyed);
      return;
    }
    void wait.value.then(() => {
      if (Atomics.load(this.words, Word.Destroyed) !== 0) calls.onDestroyed();
      else {
        // Wait again before this thread stops, so the next stop finds a wait to wake.
        this.watch(calls);
        calls.onStop();
      }
    });
  }

  /** Marks the file destroyed and tells the other threads. */
  destroy(): void {
    if (Atomics.compareExchange(this.words, Word.Destroyed, 0, 1) === 0)
      Atomics.notify(this.words, Word.Destroyed);
    reach("destroy: marked");
  }

  /**
   * This thread does not use the memory any more. If the file is destroyed, the last thread to
   * leave calls `unmap`, now or later.
   */
  leave(unmap: () => void): void {
    freeSlot(this.words, this.slot);
    // The file is live: the thread that destroys it unmaps it, or waits for the threads that use
    // it.
    if (Atomics.load(this.words, Word.Destroyed) === 0) return;
    if (!this.unmapIfEmpty(unmap)) this.poll(unmap, performance.now());
  }

  private poll(unmap: () => void, since: number): void {
    if (
      performance.now() - since > WARN_AFTER_MS &&
      Atomics.exchange(this.words, Word.DelayReported, 1) === 0
    ) {
      process.emitWarning(
        `A thread still uses the destroyed ${this.what}; its memory stays mapped until the ` +
          "thread " +
          "makes a call on it, comes back to its event loop or ends",
        { type: "MemoryFileWarning", code: "PGALLOC_THREAD_DELAYS_UNMAP" },
      );
    }
    setTimeout(() => {
      if (!this.unmapIfEmpty(unmap)) this.poll(unmap, since);
    }, POLL_MS).unref();
  }

  /** True if the memory is unmapped, by this thread or another. */
  private unmapIfEmpty(unmap: () => void): boolean {
    const result = takeUnmapping(this.words);
    if (result === "own") unmap();
    return result !== "in use";
  }
}
