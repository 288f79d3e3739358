/**
 * DemandBoard: the pages of a load that a program waits for, and the order in which they are read.
 *
 * A waiter that does not read for itself sets `wanted` bits, then the unit's bit, then the load's
 * bit in the group, and wakes the demand thread. Many waiters on a page are one bit and one read.
 */
import { forEachWord } from "../pages/bits.ts";
import type { LoadGroup } from "./group.ts";
import { type LoadTables, LoadWord, PAGES_PER_UNIT, WORDS_PER_UNIT } from "./load-tables.ts";

export class DemandBoard {
  private readonly group: LoadGroup;
  private readonly index: number;
  private readonly words: Int32Array;
  private readonly started: Int32Array;
  private readonly wanted: Int32Array;
  private readonly unitWanted: Int32Array;

  constructor(tables: LoadTables, group: LoadGroup, index: number) {
    this.group = group;
    this.index = index;
    this.words = tables.words;
    this.started = tables.started;
    this.wanted = tables.wanted;
    this.unitWanted = tables.unitWanted;
  }

  /** Asks for the pages of [start, end) that no thread has started. */
  demand(start: number, end: number): void {
    forEachWord(start, Math.min(end, this.words[LoadWord.SizePages]!), (word, mask) => {
      const want = mask & ~Atomics.load(this.started, word);
      if (want !== 0) this.want(word, want);
    });
    Atomics.store(this.words, LoadWord.NewestDemand, Math.floor(start / PAGES_PER_UNIT) + 1);
    this.ring();
  }

  /** Asks for pages of one unit, by their bits. */
  demandBits(unit: number, bits: Int32Array): void {
    for (let i = 0; i < WORDS_PER_UNIT; i++)
      if (bits[i] !== 0) this.want(unit * WORDS_PER_UNIT + i, bits[i]!);
    this.ring();
  }

  /** Marks pages of a bitmap word. The caller then calls `ring`. */
  want(word: number, mask: number): void {
    Atomics.or(this.wanted, word, mask);
    const unit = Math.floor(word / WORDS_PER_UNIT);
    Atomics.or(this.unitWanted, unit >>> 5, 1 << (unit & 31));
  }

  /** Signals loading threads that this load has wanted pages. */
  ring(): void {
    this.group.want(this.index);
    this.group.wake();
  }

  /**
   * Takes one unit with wanted pages, whose bits go to `want`. Returns -1 if there is none, or the
   * load is stopped; wanted pages then stay wanted. The first unit of the newest demand comes
   * first, then one unit after the other in rotation. So a short range does not wait behind all of
   * a long one, nor a long one behind many short ones.
   */
  take(want: Int32Array): number {
    const { words, unitWanted } = this;
    if (Atomics.load(words, LoadWord.Stop) !== 0) return -1;
    const newest = Atomics.exchange(words, LoadWord.NewestDemand, 0) - 1;
    if (newest >= 0 && this.takeWanted(newest, want)) return newest;
    const first = Atomics.load(words, LoadWord.NextDemand) >>> 5;
    for (let i = 0; i < unitWanted.length; i++) {
      const index = (first + i) % unitWanted.length;
      for (let word = Atomics.load(unitWanted, index); word !== 0; word &= word - 1) {
        const unit = (index << 5) | (31 - Math.clz32(word & -word));
        if (!this.takeWanted(unit, want)) continue;
        // The word's other units come first next time, then the words after it.
        const next = (word & (word - 1)) === 0 ? (index + 1) << 5 : unit;
        Atomics.store(words, LoadWord.NextDemand, next);
        return unit;
      }
    }
    return -1;
  }

  /** Takes the unit's wanted pages, unless another thread has. */
  private takeWanted(unit: number, want: Int32Array): boolean {
    if (unit >= this.wanted.length / WORDS_PER_UNIT) return false;
    const bit = 1 << (unit & 31);
    if ((Atomics.and(this.unitWanted, unit >>> 5, ~bit) & bit) === 0) return false;
    for (let k = 0; k < WORDS_PER_UNIT; k++)
      want[k] = Atomics.exchange(this.wanted, unit * WORDS_PER_UNIT + k, 0);
    return true;
  }
}
