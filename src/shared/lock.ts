/**
 * The lock over a file's tables: one futex word that names its owner.
 *
 * Word: 0 free; otherwise the owner's kernel thread id, plus CONTENDED when a thread may be asleep on it. `acquire` is a
 * compare-exchange from 0, then a short spin, then sleep; a thread that slept takes the lock with CONTENDED set, since
 * others may still sleep. `release` is an exchange to 0, and a wake-up only if CONTENDED was set. Both are sequentially
 * consistent, so what the owner wrote before `release` is seen after the next `acquire`.
 *
 * A sleeper wakes up now and then to see whether the owner still lives. If a thread died inside (Worker.terminate), the
 * tables may be half changed: the file is marked failed, and every call on it throws from then on.
 */
import { Word } from "./control.ts";
import { isThreadAlive, THREAD_ID } from "./thread.ts";

const CONTENDED = 0x40000000;
const SPINS = 200;
const LIVENESS_CHECK_MS = 100;

/** A thread died while it changed a file's tables; the file can be destroyed, and nothing else. */
export class FileFailedError extends Error {
  override readonly name = "FileFailedError";
  readonly code = "ERR_FILE_FAILED";

  constructor() {
    super("A thread died while it changed this MemoryFile's tables; destroy the file and restore it from its checkpoint");
  }
}

/** @throws {FileFailedError} without taking the lock */
export function acquireLock(words: Int32Array): void {
  if (Atomics.compareExchange(words, Word.Lock, 0, THREAD_ID) !== 0) acquireContended(words);
  if (words[Word.Failed] !== 0) {
    releaseLock(words);
    throw new FileFailedError();
  }
}

function acquireContended(words: Int32Array): void {
  for (let i = 0; i < SPINS; i++) {
    if (Atomics.compareExchange(words, Word.Lock, 0, THREAD_ID) === 0) return;
  }
  for (;;) {
    const seen = Atomics.load(words, Word.Lock);
    if (seen === 0) {
      if (Atomics.compareExchange(words, Word.Lock, 0, THREAD_ID | CONTENDED) === 0) return;
      continue;
    }
    const contended = seen | CONTENDED;
    if (seen !== contended && Atomics.compareExchange(words, Word.Lock, seen, contended) !== seen) continue;
    if (Atomics.wait(words, Word.Lock, contended, LIVENESS_CHECK_MS) !== "timed-out") continue;
    if (isThreadAlive(contended & ~CONTENDED)) continue;
    // The owner is dead. Whoever wins this exchange owns the lock, over tables that nobody may trust.
    if (Atomics.compareExchange(words, Word.Lock, contended, THREAD_ID | CONTENDED) === contended) {
      Atomics.store(words, Word.Failed, 1);
      return;
    }
  }
}

export function releaseLock(words: Int32Array): void {
  if ((Atomics.exchange(words, Word.Lock, 0) & CONTENDED) !== 0) Atomics.notify(words, Word.Lock, 1);
}
