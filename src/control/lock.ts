/**
 * The lock over a file's tables: one futex word that names its owner. A file without a handle
 * (Word.Shared) has one thread, which does not take the lock.
 *
 * The word is 0 if the lock is free. Else it is the owner's thread word (thread.ts), with CONTENDED
 * if a thread may be asleep on it. `acquire` tries a compare-exchange from 0, spins shortly, naps,
 * then sleeps. A thread that slept takes the lock with CONTENDED set, because others may still
 * sleep. `release` is an exchange to 0, and wakes a thread only if CONTENDED was set. Both are
 * sequentially consistent: the next owner sees all that the last owner wrote. No wake-up is lost: a
 * thread sleeps only while the word has the value that it marked, and the release of a marked word
 * wakes.
 *
 * A sleeper wakes up from time to time and checks that the owner lives. If the owner died inside
 * (Worker.terminate), the sleeper inherits the lock and repairs the tables (allocator/recover.ts)
 * before any other thread sees them. A sleeper that dies with a wake-up delays the others by at
 * most that interval.
 */
import { Word } from "./control.ts";
import { assert, checksStructures } from "../errors/errors.ts";
import { reach } from "./interleave.ts";
import { isThreadAlive, nap, THREAD_ID } from "../threads/thread.ts";

const CONTENDED = 1 << 31;
/** Pauses of the spin, about 60 ns each: as long as a short critical section. */
const PAUSES = 16;
/**
 * Then naps, each twice as long as the last up to a maximum, and a look at the word after each. The
 * owner need not wake a napping thread, which would cost more than its critical section, and its
 * caches keep the tables meanwhile. The main thread's naps are short, because its event loop waits
 * for them. Two Workers that only allocate and free reached 1.12, 1.05 and 0.89 of one Worker's
 * rate (500, 5,000 and 10,000 ranges); with naps of 0.2 ms alone and a spin of 5 µs 1.03, 0.89 and
 * 0.74 (medians of 11 runs, in turns).
 */
const NAPS_MAX = 20;
const FIRST_NAP_MS = 0.2;
const LONGEST_NAP_MS = Bun.isMainThread ? FIRST_NAP_MS : 2;
const LIVENESS_CHECK_MS = 20;

/**
 * A thread died while it changed a file's tables, and they cannot be repaired. The file can only be
 * destroyed.
 */
export class FileFailedError extends Error {
  override readonly name = "FileFailedError";
  readonly code = "ERR_FILE_FAILED";

  constructor(options?: { cause?: unknown }) {
    super(
      "A thread died while it changed this MemoryFile's tables; destroy the file and restore it " +
        "from its checkpoint",
      options,
    );
  }
}

/**
 * Takes the lock. Returns true if the owner died with it: the tables may be half changed.
 *
 * @throws {FileFailedError} without taking the lock
 */
export const acquireLock = (words: Int32Array): boolean => {
  const inherited =
    words[Word.Shared] !== 0 &&
    Atomics.compareExchange(words, Word.Lock, 0, THREAD_ID) !== 0 &&
    acquireContended(words);
  reach("lock: taken");
  if (words[Word.Failed] !== 0) {
    releaseLock(words);
    throw new FileFailedError();
  }
  return inherited;
};

function acquireContended(words: Int32Array): boolean {
  for (let i = 0; i < PAUSES; i++) Atomics.pause();
  if (takeIfFree(words)) return false;
  for (
    let naps = 0, ms = FIRST_NAP_MS;
    naps < NAPS_MAX;
    naps++, ms = Math.min(2 * ms, LONGEST_NAP_MS)
  ) {
    nap(ms);
    if (takeIfFree(words)) return false;
  }
  for (;;) {
    const seen = Atomics.load(words, Word.Lock);
    if (seen === 0) {
      if (Atomics.compareExchange(words, Word.Lock, 0, THREAD_ID | CONTENDED) === 0) return false;
      continue;
    }
    const contended = seen | CONTENDED;
    if (seen !== contended && Atomics.compareExchange(words, Word.Lock, seen, contended) !== seen)
      continue;
    reach("lock: marked contended");
    if (Atomics.wait(words, Word.Lock, contended, LIVENESS_CHECK_MS) !== "timed-out") continue;
    if (isThreadAlive(contended & ~CONTENDED)) continue;
    // The owner is dead. Of all threads that see it, the one that wins this exchange inherits the
    // lock.
    if (Atomics.compareExchange(words, Word.Lock, contended, THREAD_ID | CONTENDED) === contended)
      return true;
  }
}

/**
 * Reads the word before it tries, with a plain read (an Atomics.load writes): so the word stays in
 * the owner's cache while it is held.
 */
function takeIfFree(words: Int32Array): boolean {
  return words[Word.Lock] === 0 && Atomics.compareExchange(words, Word.Lock, 0, THREAD_ID) === 0;
}

export const releaseLock = (words: Int32Array): void => {
  if (words[Word.Shared] === 0) return;
  if (checksStructures) expectOwner(words);
  if ((Atomics.exchange(words, Word.Lock, 0) & CONTENDED) !== 0)
    Atomics.notify(words, Word.Lock, 1);
};

function expectOwner(words: Int32Array): void {
  const owner = Atomics.load(words, Word.Lock) & ~CONTENDED;
  assert(owner === THREAD_ID, () => `thread ${THREAD_ID} releases the lock of thread ${owner}`);
}

/**
 * Precondition: the lock is held. The tables cannot be repaired: every later `acquireLock` throws,
 * and threads that rely on `Discards` take the lock.
 */
export function markFailed(words: Int32Array): void {
  Atomics.add(words, Word.Discards, 1);
  Atomics.store(words, Word.Failed, 1);
}
