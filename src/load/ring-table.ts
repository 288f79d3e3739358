/**
 * RingTable: the io_uring rings of the threads that load.
 *
 * The kernel continues a direct read after the death of its thread. That thread's claims may be
 * given back only when nothing is in flight in its ring. Otherwise the read would end in pages that
 * another thread has loaded, and a program has written to, meanwhile. So each ring is recorded
 * before its thread reads with it. A thread that gives back claims looks into the ring first, and
 * closes it.
 *
 * A record has three words, and six floats that describe the ring's memory. It belongs to its
 * thread from `add` to `remove`. One thread at a time, the keeper, looks into a dead thread's ring,
 * because a ring that was unmapped meanwhile must not be touched.
 */
import { closeRing, isRingDrained, type RingPlace } from "../../ffi/index.ts";
import { UringUnavailableError } from "../aio/queue.ts";
import type { RingRegistry } from "../aio/uring-queue.ts";
import { isThreadAlive, THREAD_ID } from "../threads/thread.ts";

/** The most rings of the loading threads of a group at once, including those of dead threads. */
export const RINGS = 32;
/** Words and floats of a record. */
export const RING_WORDS = 3;
export const RING_FIELDS = 6;

const RingWord = {
  /** The thread's word; 0 if the record is free. */
  Thread: 0,
  /** Thread word of the keeper, or 0; compare-exchange from 0 or from a dead thread. */
  Keeper: 1,
  /**
   * The ring's descriptor, plus 1. 0 before the floats are written, and again before the ring is
   * closed.
   */
  Fd: 2,
} as const;

export class RingTable implements RingRegistry {
  private readonly words: Int32Array;
  private readonly places: Float64Array;

  constructor(words: Int32Array, places: Float64Array) {
    this.words = words;
    this.places = places;
  }

  add({
    fd,
    ringAddress,
    ringBytes,
    entryAddress,
    entryBytes,
    submissionHead,
    completionTail,
  }: RingPlace): void {
    for (let record = 0; record < RINGS; record++) {
      const at = record * RING_WORDS;
      if (Atomics.compareExchange(this.words, at + RingWord.Thread, 0, THREAD_ID) !== 0) continue;
      const place = [
        ringAddress,
        ringBytes,
        entryAddress,
        entryBytes,
        submissionHead,
        completionTail,
      ];
      this.places.set(place, record * RING_FIELDS);
      Atomics.store(this.words, at + RingWord.Fd, fd + 1);
      return;
    }
    throw new UringUnavailableError(`${RINGS} rings of this load are open`);
  }

  remove({ fd }: RingPlace): void {
    for (let at = 0; at < this.words.length; at += RING_WORDS) {
      if (this.words[at + RingWord.Thread] !== THREAD_ID || this.words[at + RingWord.Fd] !== fd + 1)
        continue;
      Atomics.store(this.words, at + RingWord.Fd, 0);
      Atomics.store(this.words, at + RingWord.Thread, 0);
    }
  }

  /**
   * True if no read of `thread`, which is dead, can end in memory any more. Its rings are closed
   * then.
   */
  closeOf(thread: number): boolean {
    let isClosed = true;
    for (let record = 0; record < RINGS; record++) {
      if (Atomics.load(this.words, record * RING_WORDS + RingWord.Thread) !== thread) continue;
      if (!this.close(record, thread)) isClosed = false;
    }
    return isClosed;
  }

  private close(record: number, thread: number): boolean {
    const { words } = this;
    const at = record * RING_WORDS;
    const keeper = Atomics.load(words, at + RingWord.Keeper);
    if (keeper !== 0 && isThreadAlive(keeper)) return false;
    if (Atomics.compareExchange(words, at + RingWord.Keeper, keeper, THREAD_ID) !== keeper)
      return false;
    try {
      // Another keeper may have closed it before.
      if (Atomics.load(words, at + RingWord.Thread) !== thread) return true;
      const fd = words[at + RingWord.Fd]! - 1;
      if (fd >= 0) {
        const place = this.placeOf(record, fd);
        if (!isRingDrained(place)) return false;
        // First, so that no thread looks into it any more. If this thread dies now, a descriptor
        // leaks.
        Atomics.store(words, at + RingWord.Fd, 0);
        closeRing(place);
      }
      Atomics.store(words, at + RingWord.Thread, 0);
      return true;
    } finally {
      Atomics.store(words, at + RingWord.Keeper, 0);
    }
  }

  private placeOf(record: number, fd: number): RingPlace {
    const at = record * RING_FIELDS;
    const [ringAddress, ringBytes, entryAddress, entryBytes, submissionHead, completionTail] =
      this.places.subarray(at, at + RING_FIELDS) as unknown as [
        number,
        number,
        number,
        number,
        number,
        number,
      ];
    return { fd, ringAddress, ringBytes, entryAddress, entryBytes, submissionHead, completionTail };
  }
}
