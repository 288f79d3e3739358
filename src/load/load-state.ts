/**
 * What is loaded: the shared state of one restore, in memory that every loading or waiting thread has (load-tables.ts).
 *
 * Pages have four bits, in four bitmaps; a unit is the 2 MiB that a huge page covers.
 *
 *   started  some thread has claimed the page and will read it. Set by Atomics.or: the bits that were 0 before are mine.
 *   loaded   its contents are in place and checked. Set by the claimer after the bytes, so who sees the bit sees them.
 *   failed   reading it failed; `unitError` of its unit was written before. It stays failed until `retry`.
 *   mismatched  beside failed, and set before: it was read, and its checksum does not match.
 *
 * Pages with nothing to load (free, or zero) have started and loaded set from the beginning, before the state is shared.
 *
 * Waiting: a waiter adds 1 to `unitWaiters` of each unit that it waits for, and then looks at the bits; a loader sets bits, then looks
 * at `unitWaiters`, and if anybody waits, bumps Word.LoadProgress and wakes: one sees the other. Who waits for all is not counted
 * (woken by each unit, a load of 2 GiB took a third longer): the end and failures wake it.
 *
 * Demand: a waiter that will not read for itself sets `wanted` bits and then bumps the word Demand, on which a thread sleeps that
 * does nothing else. Many waiters on one page are one bit, and one read.
 *
 * A claim stands in a slot of its thread, so that what a dead thread had claimed can be given back: the unit before `started` is set,
 * the bits of its pages right after. In between the thread makes no call, and so cannot end (450 terminated Workers).
 */
import { bitCount, forEachWord } from "../pages/bits.ts";
import { type Control, wakeWaiters, Word } from "../control/control.ts";
import { reach } from "../control/interleave.ts";
import { isThreadAlive, THREAD_ID } from "../threads/thread.ts";
import { PAGE_SIZE } from "../pages/units.ts";
import {
  createLoadTables,
  isWhole,
  type LoadHandle,
  type LoadPlan,
  LoadWord,
  openLoadTables,
  PAGES_PER_UNIT,
  SLOT_WORDS,
  SLOTS,
  WORDS_PER_UNIT,
} from "./load-tables.ts";
import { RingTable } from "./ring-table.ts";

export {
  type LoadHandle,
  LoadWord,
  PAGES_PER_UNIT,
  URING_DEPTH_MAX,
  WORDS_PER_UNIT,
} from "./load-tables.ts";

/** `unitError` of a unit whose contents did not match their checksums, or whose file ended early; positive: error numbers. */
export const ERROR_CHECKSUM = -1;
export const ERROR_SHORT = -2;

/** What a thread has claimed of one unit, and what came of it. */
export interface ClaimedPages {
  readonly unit: number;
  /** Bits of the unit's pages; `fail` leaves those of the good ones. */
  readonly want: Int32Array;
  readonly count: number;
  /** Bits of those that could not be read or are not what they should be, and of the latter alone. */
  readonly bad: Int32Array;
  readonly mismatched: Int32Array;
  readonly badCount: number;
  /** What kept the first of them from being read, or ERROR_CHECKSUM. */
  readonly error: number;
}

export class LoadState {
  readonly handle: LoadHandle;
  readonly words: Int32Array;
  readonly extentStart: Uint32Array;
  readonly extentLength: Uint32Array;
  readonly checksums: Uint32Array;
  readonly unitCount: number;
  private readonly firstOffset: Float64Array;
  private readonly extentOffset: Float64Array;
  private readonly started: Int32Array;
  private readonly loaded: Int32Array;
  private readonly failed: Int32Array;
  private readonly mismatched: Int32Array;
  private readonly wanted: Int32Array;
  private readonly unitPending: Int32Array;
  private readonly unitFirstExtent: Int32Array;
  private readonly unitFirstContent: Int32Array;
  private readonly unitWaiters: Int32Array;
  private readonly unitWanted: Int32Array;
  private readonly unitError: Int32Array;
  private readonly slots: Int32Array;
  /** What `drop` claims: reused, since every decRef during a load comes there. */
  private readonly dropped = new Int32Array(WORDS_PER_UNIT);
  readonly rings: RingTable;

  constructor(handle: LoadHandle) {
    this.handle = handle;
    const tables = openLoadTables(handle);
    this.words = tables.words;
    this.extentStart = tables.extentStart;
    this.extentLength = tables.extentLength;
    this.checksums = tables.checksums;
    this.unitCount = tables.unitCount;
    this.firstOffset = tables.firstOffset;
    this.extentOffset = tables.extentOffset;
    this.started = tables.started;
    this.loaded = tables.loaded;
    this.failed = tables.failed;
    this.mismatched = tables.mismatched;
    this.wanted = tables.wanted;
    this.unitPending = tables.unitPending;
    this.unitFirstExtent = tables.unitFirstExtent;
    this.unitFirstContent = tables.unitFirstContent;
    this.unitWaiters = tables.unitWaiters;
    this.unitWanted = tables.unitWanted;
    this.unitError = tables.unitError;
    this.slots = tables.slots;
    this.rings = new RingTable(tables.rings, tables.ringPlaces);
  }

  /** Precondition: the plan has been validated (checkpoint/decode.ts): extents ordered, disjoint, within the size. */
  static create(plan: LoadPlan): LoadState {
    return new LoadState(createLoadTables(plan));
  }

  /** True while pages are outstanding that will be loaded. */
  get isLoading(): boolean {
    return this.words[LoadWord.PendingPages]! > 0 && this.words[LoadWord.Stop] === 0;
  }

  /** The unit behind the last one that [.., end) touches. A file may have grown since: what is new has nothing to load. */
  private lastUnitOf(end: number): number {
    return Math.min(this.unitCount, Math.ceil(end / PAGES_PER_UNIT));
  }

  private forEachWord(
    start: number,
    end: number,
    visit: (word: number, mask: number) => void,
  ): void {
    forEachWord(start, Math.min(end, this.words[LoadWord.SizePages]!), visit);
  }

  /** True if every page of [start, end) is in place. */
  isLoaded(start: number, end: number): boolean {
    for (
      let unit = Math.floor(start / PAGES_PER_UNIT), last = this.lastUnitOf(end);
      unit < last;
      unit++
    ) {
      if (Atomics.load(this.unitPending, unit) === 0 && this.unitError[unit] === 0) continue;
      const from = Math.max(start, unit * PAGES_PER_UNIT);
      const to = Math.min(end, (unit + 1) * PAGES_PER_UNIT);
      if (!this.everyBit(from, to, (word) => Atomics.load(this.loaded, word))) return false;
    }
    return true;
  }

  private everyBit(start: number, end: number, bits: (word: number) => number): boolean {
    let every = true;
    this.forEachWord(start, end, (word, mask) => {
      if (every && (bits(word) & mask) !== mask) every = false;
    });
    return every;
  }

  /** The first failed page in [start, end), or -1. */
  failedPage(start = 0, end = this.words[LoadWord.SizePages]!): number {
    if (this.words[LoadWord.FailedPages] === 0) return -1;
    let found = -1;
    this.forEachWord(start, end, (word, mask) => {
      const failed = found < 0 ? Atomics.load(this.failed, word) & mask : 0;
      if (failed !== 0) found = (word << 5) + 31 - Math.clz32(failed & -failed);
    });
    return found;
  }

  /** What went wrong where `page` failed: an error number or ERROR_.... */
  errorOf(page: number): number {
    if ((Atomics.load(this.mismatched, page >>> 5) & (1 << (page & 31))) !== 0)
      return ERROR_CHECKSUM;
    return Atomics.load(this.unitError, Math.floor(page / PAGES_PER_UNIT));
  }

  /** The extent that holds `page`, and the byte offset of its contents in the pages file. Precondition: there is one. */
  placeOf(page: number): { extent: number; offset: number } {
    const unit = Math.floor(page / PAGES_PER_UNIT);
    let content = this.firstContentOf(unit);
    let extent = this.firstExtentOf(unit);
    while (this.extentStart[extent]! + this.extentLength[extent]! <= page)
      content += this.extentLength[extent++]!;
    return {
      extent,
      offset:
        this.offsetOfContent(extent, content) + (page - this.extentStart[extent]!) * PAGE_SIZE,
    };
  }

  /** Byte offset in the pages file of an extent's contents; `content` counts the pages of all extents before it. */
  offsetOfContent(extent: number, content: number): number {
    return this.extentOffset.length > 0
      ? this.extentOffset[extent]!
      : this.firstOffset[0]! + content * PAGE_SIZE;
  }

  /** How many pages of contents stand before that offset. Precondition: there are checksums, and so no gaps. */
  contentAt(offset: number): number {
    return (offset - this.firstOffset[0]!) / PAGE_SIZE;
  }

  /** True if all contents begin at multiples of the page size in the file: what O_DIRECT asks for. */
  isPageAligned(): boolean {
    return (
      this.firstOffset[0]! % PAGE_SIZE === 0 &&
      this.extentOffset.every((offset) => offset % PAGE_SIZE === 0)
    );
  }

  /** The first extent with pages in the unit, or -1. */
  firstExtentOf(unit: number): number {
    return this.unitFirstExtent[unit]!;
  }

  /** How many pages with contents stand before that extent: the index of its first checksum. */
  firstContentOf(unit: number): number {
    return this.unitFirstContent[unit]!;
  }

  /** A slot for this thread's claims. */
  takeSlot(): number {
    for (let attempt = 0; attempt < 2; attempt++) {
      for (let slot = 0; slot < SLOTS; slot++) {
        if (Atomics.compareExchange(this.slots, slot * SLOT_WORDS, 0, THREAD_ID) === 0) return slot;
      }
      this.recoverDeadClaims();
    }
    throw new Error(`More than ${SLOTS} threads load at once`);
  }

  freeSlot(slot: number): void {
    Atomics.store(this.slots, slot * SLOT_WORDS, 0);
  }

  /**
   * Claims what nobody has started of the pages in `want` (one unit's bits). The claimed bits replace `want`; returns how
   * many. The slot names them until `publish` or `fail`.
   */
  claim(slot: number, unit: number, want: Int32Array): number {
    const at = slot * SLOT_WORDS;
    this.slots.fill(0, at + 2, at + SLOT_WORDS);
    Atomics.store(this.slots, at + 1, unit + 1);
    let count = 0;
    for (let i = 0; i < WORDS_PER_UNIT; i++) {
      const word = unit * WORDS_PER_UNIT + i;
      // What is named is the thread's own, so that a dead one's slot never gives back what another one claimed.
      const free = want[i]! & ~Atomics.load(this.started, word);
      const mine = free === 0 ? 0 : free & ~Atomics.or(this.started, word, free);
      want[i] = this.slots[at + 2 + i] = mine;
      count += bitCount(mine);
    }
    if (count === 0) Atomics.store(this.slots, at + 1, 0);
    return count;
  }

  /** Gives a claim back unread. */
  unclaim(slot: number, unit: number, claimed: Int32Array): void {
    for (let i = 0; i < WORDS_PER_UNIT; i++)
      Atomics.and(this.started, unit * WORDS_PER_UNIT + i, ~claimed[i]!);
    Atomics.store(this.slots, slot * SLOT_WORDS + 1, 0);
  }

  /** True while something that a thread claimed may still be read: by the thread, or by the kernel though it is dead. */
  hasClaims(): boolean {
    for (let slot = 0; slot < SLOTS; slot++) {
      const at = slot * SLOT_WORDS;
      const thread = Atomics.load(this.slots, at);
      if (thread !== 0 && Atomics.load(this.slots, at + 1) !== 0 && this.mayWrite(thread))
        return true;
    }
    return false;
  }

  /** False once neither the thread nor a read of its own can change memory. A dead thread's rings are closed on the way. */
  private mayWrite(thread: number): boolean {
    return isThreadAlive(thread) || !this.rings.closeOf(thread);
  }

  /** The claimed pages are in place. */
  publish(control: Control, slot: number, unit: number, claimed: Int32Array, count: number): void {
    this.setLoaded(unit, claimed);
    reach("load: bits set");
    Atomics.add(this.words, LoadWord.LoadedPages, count);
    this.settle(control, slot, unit, count);
  }

  private setLoaded(unit: number, pages: Int32Array): void {
    for (let i = 0; i < WORDS_PER_UNIT; i++) {
      if (pages[i] !== 0) Atomics.or(this.loaded, unit * WORDS_PER_UNIT + i, pages[i]!);
    }
  }

  /** Some of the claimed pages (at least one) are bad; the others are in place. */
  fail(control: Control, slot: number, claim: ClaimedPages): void {
    const { unit, want, count, bad, mismatched, badCount, error } = claim;
    // Of a page that could be read the bit says it; the word is for the others.
    if (error !== ERROR_CHECKSUM || Atomics.load(this.unitError, unit) === 0)
      Atomics.store(this.unitError, unit, error);
    Atomics.add(this.words, LoadWord.FailedPages, badCount);
    Atomics.add(this.words, LoadWord.LoadedPages, count - badCount);
    for (let i = 0; i < WORDS_PER_UNIT; i++) {
      const word = unit * WORDS_PER_UNIT + i;
      if (bad[i] !== 0) {
        Atomics.and(this.mismatched, word, ~bad[i]!);
        Atomics.or(this.mismatched, word, mismatched[i]!);
        Atomics.or(this.failed, word, bad[i]!);
        // Not this thread's any more: they may be tried again before it is found dead.
        this.slots[slot * SLOT_WORDS + 2 + i]! &= ~bad[i]!;
      }
      want[i]! &= ~bad[i]!;
    }
    this.setLoaded(unit, want);
    this.settle(control, slot, unit, count, badCount);
  }

  private settle(control: Control, slot: number, unit: number, count: number, badCount = 0): void {
    this.countArrived(control, count - badCount);
    Atomics.sub(this.unitPending, unit, count);
    if (Atomics.sub(this.words, LoadWord.PendingPages, count) === count) this.end(control);
    // Last: while no living thread has a claim, no count is about to change for one.
    Atomics.store(this.slots, slot * SLOT_WORDS + 1, 0);
    if (badCount > 0 || Atomics.load(this.unitWaiters, unit) > 0) wakeWaiters(control);
  }

  /**
   * If every page is loaded or failed, nobody has a claim, and yet some count as pending, a thread died before it had counted them: the
   * load is over. In this order: who has a claim sets bits, counts, and lets it go; who tries again bumps `Revision` first; who forgets
   * failures counts them as arrived before it takes them off `FailedPages`.
   */
  endIfAllRead(control: Control): void {
    const { words } = this;
    const revision = Atomics.load(words, LoadWord.Revision);
    const pending = Atomics.load(words, LoadWord.PendingPages);
    if (pending === 0 || this.hasClaims()) return;
    const bits = (word: number) =>
      Atomics.load(this.loaded, word) | Atomics.load(this.failed, word);
    if (!this.everyBit(0, words[LoadWord.SizePages]!, bits) || this.hasClaims()) return;
    const arrived =
      -Atomics.load(words, LoadWord.FailedPages) + Atomics.load(words, LoadWord.MissingPages);
    if (Atomics.compareExchange(words, LoadWord.Revision, revision, revision + 1) !== revision)
      return;
    if (Atomics.compareExchange(words, LoadWord.PendingPages, pending, 0) !== pending) return;
    this.unitPending.fill(0);
    this.countArrived(control, arrived);
    this.end(control);
  }

  /** So many more are in place, or needed no more. With the last of them the file is an ordinary one. */
  private countArrived(control: Control, pages: number): void {
    if (pages > 0 && Atomics.sub(this.words, LoadWord.MissingPages, pages) === pages)
      Atomics.store(control.words, Word.Loading, 0);
  }

  /** Nothing is pending any more. */
  private end(control: Control): void {
    reach("load: none pending");
    this.wakeDemand();
    wakeWaiters(control);
  }

  /**
   * Drops what nobody has started of [start, end), and forgets what failed there: whoever gets those pages next gets new
   * ones. True if something is still being read into it.
   */
  cancel(control: Control, start: number, end: number): boolean {
    for (
      let unit = Math.floor(start / PAGES_PER_UNIT), last = this.lastUnitOf(end);
      unit < last;
      unit++
    ) {
      this.drop(
        control,
        unit,
        Math.max(start, unit * PAGES_PER_UNIT),
        Math.min(end, (unit + 1) * PAGES_PER_UNIT),
      );
    }
    let inFlight = false;
    this.forEachWord(start, end, (word, mask) => {
      this.forgetFailures(control, word, mask);
      if ((mask & ~Atomics.load(this.loaded, word)) !== 0) inFlight = true;
    });
    return inFlight;
  }

  /** Within one unit. With a claim, as if to read it: a thread that ends here leaves nothing that is started and in nobody's hands. */
  private drop(control: Control, unit: number, start: number, end: number): void {
    const want = this.dropped.fill(0);
    let free = 0;
    this.forEachWord(start, end, (word, mask) => {
      want[word % WORDS_PER_UNIT] = mask;
      free |= mask & ~Atomics.load(this.started, word);
    });
    if (free === 0) return;
    const slot = this.takeSlot();
    const count = this.claim(slot, unit, want);
    if (count > 0) {
      reach("drop: claimed");
      this.setLoaded(unit, want);
      this.settle(control, slot, unit, count);
    }
    this.freeSlot(slot);
  }

  private forgetFailures(control: Control, word: number, mask: number): void {
    const forgotten = mask & Atomics.and(this.failed, word, ~mask);
    if (forgotten === 0) return;
    Atomics.or(this.loaded, word, forgotten);
    this.countArrived(control, bitCount(forgotten));
    const left =
      Atomics.sub(this.words, LoadWord.FailedPages, bitCount(forgotten)) - bitCount(forgotten);
    if (left === 0 && Atomics.load(this.words, LoadWord.PendingPages) === 0) this.end(control);
  }

  /**
   * Makes the failed pages of [start, end) pending again, so that they can be claimed. Returns how many. `unitError` stays:
   * it is read only beside a failed bit, and keeps `isLoaded` from trusting the unit's count alone.
   */
  retry(start: number, end: number): number {
    Atomics.add(this.words, LoadWord.Revision, 1);
    let count = 0;
    this.forEachWord(start, end, (word, mask) => {
      const failed = mask & Atomics.and(this.failed, word, ~mask);
      if (failed === 0) return;
      // Pending before claimable: nobody may finish a page that is not counted.
      const pages = bitCount(failed);
      Atomics.add(this.words, LoadWord.PendingPages, pages);
      Atomics.add(this.unitPending, Math.floor(word / WORDS_PER_UNIT), pages);
      Atomics.sub(this.words, LoadWord.FailedPages, pages);
      Atomics.and(this.started, word, ~failed);
      this.want(word, failed);
      count += pages;
    });
    if (count > 0) this.wakeDemand();
    return count;
  }

  /** One waiter more, or less. */
  countWaiter(start: number, end: number, change: 1 | -1): void {
    if (isWhole(this.words, start, end)) return;
    for (
      let unit = Math.floor(start / PAGES_PER_UNIT), last = this.lastUnitOf(end);
      unit < last;
      unit++
    )
      Atomics.add(this.unitWaiters, unit, change);
  }

  /** Asks the demand thread for what is not loaded of [start, end). */
  demand(start: number, end: number): void {
    this.forEachWord(start, end, (word, mask) => {
      const want = mask & ~Atomics.load(this.started, word);
      if (want !== 0) this.want(word, want);
    });
    Atomics.store(this.words, LoadWord.NewestDemand, Math.floor(start / PAGES_PER_UNIT) + 1);
    this.wakeDemand();
  }

  private want(word: number, mask: number): void {
    Atomics.or(this.wanted, word, mask);
    const unit = Math.floor(word / WORDS_PER_UNIT);
    Atomics.or(this.unitWanted, unit >>> 5, 1 << (unit & 31));
  }

  wakeDemand(): void {
    Atomics.add(this.words, LoadWord.Demand, 1);
    Atomics.notify(this.words, LoadWord.Demand);
  }

  /** Asks for pages of one unit, by their bits. */
  demandBits(unit: number, bits: Int32Array): void {
    for (let i = 0; i < WORDS_PER_UNIT; i++)
      if (bits[i] !== 0) this.want(unit * WORDS_PER_UNIT + i, bits[i]!);
    this.wakeDemand();
  }

  /** Remembers the most reads that were in flight at once. */
  noteInFlight(reads: number): void {
    const { words } = this;
    for (let most = Atomics.load(words, LoadWord.MostInFlight); most < reads; ) {
      const seen = Atomics.compareExchange(words, LoadWord.MostInFlight, most, reads);
      if (seen === most) return;
      most = seen;
    }
  }

  /**
   * Takes one unit with wanted pages, whose bits go to `want`; -1 if there is none. The newest demand's first unit comes
   * first, then one after the other in turn: neither stands a short range behind all of a long one, nor the other way round.
   */
  takeDemand(want: Int32Array): number {
    const { words, unitWanted } = this;
    const newest = Atomics.exchange(words, LoadWord.NewestDemand, 0) - 1;
    if (newest >= 0 && this.takeWanted(newest, want)) return newest;
    const first = Atomics.load(words, LoadWord.NextDemand) >>> 5;
    for (let i = 0; i < unitWanted.length; i++) {
      const index = (first + i) % unitWanted.length;
      for (let word = Atomics.load(unitWanted, index); word !== 0; word &= word - 1) {
        const unit = (index << 5) | (31 - Math.clz32(word & -word));
        if (!this.takeWanted(unit, want)) continue;
        // The word's other units come first next time, then the words behind it.
        Atomics.store(
          words,
          LoadWord.NextDemand,
          (word & (word - 1)) === 0 ? (index + 1) << 5 : unit,
        );
        return unit;
      }
    }
    return -1;
  }

  /** Takes the unit's wanted pages, if they are still wanted and not another thread's to read. */
  private takeWanted(unit: number, want: Int32Array): boolean {
    const bit = 1 << (unit & 31);
    if ((Atomics.and(this.unitWanted, unit >>> 5, ~bit) & bit) === 0) return false;
    for (let k = 0; k < WORDS_PER_UNIT; k++)
      want[k] = Atomics.exchange(this.wanted, unit * WORDS_PER_UNIT + k, 0);
    return true;
  }

  /** Gives back the claims of threads that are dead and have no read in flight any more, and asks for them again. */
  recoverDeadClaims(): void {
    for (let slot = 0; slot < SLOTS; slot++) {
      const at = slot * SLOT_WORDS;
      const thread = Atomics.load(this.slots, at);
      if (thread === 0 || this.mayWrite(thread)) continue;
      if (Atomics.compareExchange(this.slots, at, thread, THREAD_ID) !== thread) continue;
      // The slot is ours as the claim was its owner's: if we die here, it is given back by another, from where we were.
      reach("recover: took the slot");
      const unit = Atomics.load(this.slots, at + 1) - 1;
      if (unit >= 0) {
        for (let i = 0; i < WORDS_PER_UNIT; i++) {
          const word = unit * WORDS_PER_UNIT + i;
          const lost =
            this.slots[at + 2 + i]! &
            ~Atomics.load(this.loaded, word) &
            ~Atomics.load(this.failed, word);
          Atomics.and(this.started, word, ~lost);
          this.slots[at + 2 + i] = 0;
        }
        Atomics.store(this.slots, at + 1, 0);
        this.demand(
          unit * PAGES_PER_UNIT,
          Math.min((unit + 1) * PAGES_PER_UNIT, this.words[LoadWord.SizePages]!),
        );
      }
      Atomics.store(this.slots, at, 0);
    }
  }
}
