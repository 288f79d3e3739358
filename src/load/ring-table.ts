/**
 * The io_uring rings of the threads that load. The kernel goes on with a direct read when the thread that asked for it is dead: what
 * that thread had claimed may be given back only when nothing is in flight in its ring, or the read would land in pages that
 * have been loaded, and written to, by somebody else meanwhile. So each ring is recorded before its thread reads by it, and
 * whoever takes a dead thread's claims back looks into the ring first, and closes it.
 *
 * A record is a ring's: three words, and six floats that say where it stands. It is its thread's from `add` to `remove`. Into
 * a dead thread's ring one thread looks at a time, the keeper, since one that was unmapped meanwhile must not be looked at.
 */
import { closeRing, isRingDrained, type RingPlace } from "../../ffi/index.ts";
import type { RingRegistry } from "../aio/uring-queue.ts";
import { isThreadAlive, THREAD_ID } from "../threads/thread.ts";
import { RING_FIELDS, RING_WORDS, RINGS } from "./load-tables.ts";

const RingWord = {
  /** The thread's word; 0 when the record is free. */
  Thread: 0,
  /** Thread word of the keeper, or 0; compare-exchange from 0 or from a dead thread. */
  Keeper: 1,
  /** The ring's descriptor, plus 1; 0 before the floats are written, and from before the ring is closed. */
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
    throw new Error(`More than ${RINGS} rings load at once`);
  }

  remove({ fd }: RingPlace): void {
    for (let at = 0; at < this.words.length; at += RING_WORDS) {
      if (this.words[at + RingWord.Thread] !== THREAD_ID || this.words[at + RingWord.Fd] !== fd + 1)
        continue;
      Atomics.store(this.words, at + RingWord.Fd, 0);
      Atomics.store(this.words, at + RingWord.Thread, 0);
    }
  }

  /** True if no read of `thread`, which is dead, can land any more. Its rings are closed then. */
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
      // Another keeper may have closed it before this one came.
      if (Atomics.load(words, at + RingWord.Thread) !== thread) return true;
      const fd = words[at + RingWord.Fd]! - 1;
      if (fd >= 0) {
        const place = this.placeOf(record, fd);
        if (!isRingDrained(place)) return false;
        // First, so that nobody looks into it any more: if this thread dies now, a descriptor stays open, and nothing worse.
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
