/**
 * What all threads of a store share beside its pages: the lock, the readers' counts, and which
 * entries were read lately. It is one SharedArrayBuffer of fixed size, part of the store's handle,
 * and never stored.
 *
 * Readers in other threads take no lock. What they read is divided into stripes, by key, handle or
 * row, and each stripe has a count. The writer makes the count odd before it changes what the
 * stripe covers, and even afterwards. A reader that finds the same even count before and after has
 * read one whole value, old or new; otherwise it reads again (a seqlock: Lameter 2005; Boehm, "Can
 * seqlocks get along with programming language memory models?", MSPC 2012). After some tries it
 * takes the lock. Atomics order these steps: each is a full barrier in this engine.
 *
 * Which entries were read lately (for CLOCK, Corbató 1968) is one bit by hash, shared by all maps
 * of the store that have a limit: a reader sets it, the evicting writer clears it. Entries with the
 * same bit are marked and cleared together.
 */
import { Word } from "../control/control.ts";
import { acquireLock, markFailed, releaseLock } from "../control/lock.ts";

/**
 * The lock's words are where control/lock.ts wants them (Word.Lock, Word.Failed, Word.Shared,
 * Word.Discards).
 */
const LOCK_WORDS = 64;
const STRIPES = 16_384;
/** Of the stripes of one structure. */
export const STRIPE_BITS = 10;
const RECENT_BITS = 24;
const RECENT_MASK = (1 << RECENT_BITS) - 1;
const RECENT_WORDS = (1 << RECENT_BITS) / 32;
const STRIPES_AT = LOCK_WORDS;
const RECENT_AT = STRIPES_AT + STRIPES;
const CONTROL_WORDS = RECENT_AT + RECENT_WORDS;
/** 2^32 divided by the golden ratio: spreads structures over the stripes. */
const SPREAD = 0x9e3779b1;

export class StoreControl {
  readonly words: Int32Array<SharedArrayBuffer>;
  /** Stripes that the operation under way has made odd. */
  private readonly marked: number[] = [];

  constructor(buffer = new SharedArrayBuffer(4 * CONTROL_WORDS)) {
    if (!(buffer instanceof SharedArrayBuffer) || buffer.byteLength !== 4 * CONTROL_WORDS)
      throw new TypeError("Expected a handle made by Store.share() in this process");
    this.words = new Int32Array(buffer);
  }

  get isShared(): boolean {
    return this.words[Word.Shared] !== 0;
  }

  /** From now on other threads may use the store. */
  markShared(): void {
    Atomics.store(this.words, Word.Shared, 1);
  }

  /** Takes the lock. True if its owner died with it. @throws {FileFailedError} */
  lock(): boolean {
    return acquireLock(this.words);
  }

  unlock(): void {
    releaseLock(this.words);
  }

  /** Lock held: the store cannot be repaired. */
  markFailed(): void {
    markFailed(this.words);
  }

  get hasMarks(): boolean {
    return this.marked.length > 0;
  }

  /** The stripe of a structure for a hash, by its highest bits. */
  stripeOf(structure: number, hash: number): number {
    return this.stripeAt(structure, hash >>> (32 - STRIPE_BITS));
  }

  /** One of a structure's 2^STRIPE_BITS stripes. */
  stripeAt(structure: number, index: number): number {
    const first = Math.imul(structure, SPREAD) >>> 18;
    return STRIPES_AT + ((first + index) & (STRIPES - 1));
  }

  /** Before the writer changes what a stripe covers. */
  mark(stripe: number): void {
    if (this.words[Word.Shared] === 0 || this.marked.includes(stripe)) return;
    this.marked.push(stripe);
    Atomics.add(this.words, stripe, 1);
  }

  /** Before the writer changes what stripes [first, first + count) of a structure cover. */
  markMany(structure: number, first: number, count: number): void {
    if (this.words[Word.Shared] === 0) return;
    const before = new Set(this.marked);
    for (let index = first; index < first + count; index++) {
      const stripe = this.stripeAt(structure, index);
      if (before.has(stripe)) continue;
      this.marked.push(stripe);
      Atomics.add(this.words, stripe, 1);
    }
  }

  /** Before the writer changes what any stripe of a structure covers. */
  markStructure(structure: number): void {
    this.markMany(structure, 0, 1 << STRIPE_BITS);
  }

  /** The operation is over. */
  unmarkAll(): void {
    for (const stripe of this.marked) Atomics.add(this.words, stripe, 1);
    this.marked.length = 0;
  }

  /** Lock held, taken from a dead thread: makes all counts even. */
  clearMarks(): void {
    for (let stripe = STRIPES_AT; stripe < RECENT_AT; stripe++) {
      if ((Atomics.load(this.words, stripe) & 1) !== 0) Atomics.add(this.words, stripe, 1);
    }
  }

  /** The stripe's count; odd while a writer is changing what it covers. */
  countOf(stripe: number): number {
    return Atomics.load(this.words, stripe);
  }

  /** An entry whose hash ends in those 24 bits was read. */
  setRecent(hash: number): void {
    const word = RECENT_AT + ((hash & RECENT_MASK) >>> 5);
    const bit = 1 << (hash & 31);
    if ((this.words[word]! & bit) !== 0) return;
    if (this.words[Word.Shared] === 0) this.words[word]! |= bit;
    else Atomics.or(this.words, word, bit);
  }

  /** Whether such an entry was read since this was last asked. */
  takeRecent(hash: number): boolean {
    const word = RECENT_AT + ((hash & RECENT_MASK) >>> 5);
    const bit = 1 << (hash & 31);
    if ((this.words[word]! & bit) === 0) return false;
    return (Atomics.and(this.words, word, ~bit) & bit) !== 0;
  }
}
