/**
 * LoadGroup: the part that the loads of one restore share. A checkpoint of thousands of files takes
 * as many threads as one of a single file.
 *
 * Loads have an index in the group, which is their order. Words in one SharedArrayBuffer:
 * - Demand: changed when a program waits for missing pages of any load, and when a load ends. The
 *   demand thread sleeps on it. Background threads yield when it changes, while pages are wanted,
 *   and while that thread has reads in flight.
 * - a bitmap of loads with wanted pages, and a hint to the newest.
 * - the io_uring rings of loading threads (ring-table.ts).
 */
import { RING_FIELDS, RING_WORDS, RINGS, RingTable } from "./ring-table.ts";

export const GroupWord = {
  /** See above. Atomics.add; waited for. */
  Demand: 0,
  /** The demand thread while it serves, else 0. Written by that thread; a hint to waiters. */
  DemandServed: 1,
  /** 1 once a background thread reads. Written by those threads. */
  Begun: 2,
  /** Index of the load with the newest demand, plus 1. A hint. */
  NewestLoad: 3,
  LoadCount: 4,
  /** Units that the demand thread has in flight. Written by that thread; a hint. */
  DemandInFlight: 5,
  /** 1 while the group waits for its threads (admission.ts): waiters read for themselves. */
  IsQueued: 6,
} as const;

const HEADER_WORDS = 8;
const FIELD_BYTES = 8 * RINGS * RING_FIELDS;

/** The shared memory of a group of `loads` loads. */
export function createGroup(loads: number): SharedArrayBuffer {
  const words = HEADER_WORDS + Math.ceil(loads / 32) + RINGS * RING_WORDS;
  const buffer = new SharedArrayBuffer(FIELD_BYTES + 4 * words);
  new Int32Array(buffer, FIELD_BYTES)[GroupWord.LoadCount] = loads;
  return buffer;
}

export class LoadGroup {
  readonly words: Int32Array;
  readonly rings: RingTable;
  /** One bit for each load. */
  private readonly wanted: Int32Array;

  constructor(buffer: SharedArrayBuffer) {
    const words = new Int32Array(buffer, FIELD_BYTES);
    this.words = words;
    const ringsAt = HEADER_WORDS + Math.ceil(words[GroupWord.LoadCount]! / 32);
    this.wanted = words.subarray(HEADER_WORDS, ringsAt);
    this.rings = new RingTable(
      words.subarray(ringsAt),
      new Float64Array(buffer, 0, RINGS * RING_FIELDS),
    );
  }

  /** A value that changes with the next demand. */
  get demand(): number {
    return Atomics.load(this.words, GroupWord.Demand);
  }

  /** True while pages are wanted, or the demand thread waits for reads of them. */
  get isDemandUnderWay(): boolean {
    if (Atomics.load(this.words, GroupWord.DemandInFlight) !== 0) return true;
    return this.wanted.some((_, word) => Atomics.load(this.wanted, word) !== 0);
  }

  get isServed(): boolean {
    return Atomics.load(this.words, GroupWord.DemandServed) !== 0;
  }

  get isQueued(): boolean {
    return Atomics.load(this.words, GroupWord.IsQueued) !== 0;
  }

  /** True once pages are wanted, until a thread takes them. */
  get hasDemand(): boolean {
    return Atomics.load(this.words, GroupWord.NewestLoad) !== 0;
  }

  /** Records that load `index` has wanted pages. The caller then calls `wake`. */
  want(index: number): void {
    Atomics.or(this.wanted, index >>> 5, 1 << (index & 31));
    Atomics.store(this.words, GroupWord.NewestLoad, index + 1);
  }

  /** Records that more pages of load `index` may be wanted. */
  wantAgain(index: number): void {
    Atomics.or(this.wanted, index >>> 5, 1 << (index & 31));
  }

  /** Called when a thread reads pages that it waits for itself: background threads yield. */
  noteDemand(): void {
    Atomics.add(this.words, GroupWord.Demand, 1);
  }

  /** Makes loading threads look again. */
  wake(): void {
    Atomics.add(this.words, GroupWord.Demand, 1);
    Atomics.notify(this.words, GroupWord.Demand);
  }

  /**
   * The index of a load with wanted pages, or -1: the newest first, then in rotation from `after`.
   * Its bit is cleared: the caller calls `wantAgain` if more may remain.
   */
  takeLoad(after: number): number {
    const newest = Atomics.exchange(this.words, GroupWord.NewestLoad, 0) - 1;
    if (newest >= 0 && this.take(newest)) return newest;
    const { wanted } = this;
    const first = (after + 1) >>> 5;
    for (let i = 0; i <= wanted.length; i++) {
      const word = (first + i) % wanted.length;
      const skip = i === 0 ? -1 << ((after + 1) & 31) : -1;
      for (let bits = Atomics.load(wanted, word) & skip; bits !== 0; bits &= bits - 1) {
        const index = (word << 5) | (31 - Math.clz32(bits & -bits));
        if (this.take(index)) return index;
      }
    }
    return -1;
  }

  private take(index: number): boolean {
    const bit = 1 << (index & 31);
    return (Atomics.and(this.wanted, index >>> 5, ~bit) & bit) !== 0;
  }
}
