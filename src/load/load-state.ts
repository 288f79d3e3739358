/**
 * LoadState: which pages are loaded. The state of one load, in memory that all loading and waiting
 * threads share (load-tables.ts).
 *
 * A page has four bits, in four bitmaps. A unit is the 2 MiB that a huge page covers.
 *
 *   started     A thread claimed the page and will read it. Set by Atomics.or: the bits that were
 *               0 before are the thread's own.
 *   loaded      Its contents are in place and checked. Set after the bytes, so a thread that sees
 *               the bit sees them.
 *   failed      Reading it failed; `unitError` of its unit was written before. Until `retry`.
 *   mismatched  Set before `failed`: it was read, and its checksum does not match.
 *
 * Pages with nothing to load (free, or zero) have started and loaded set from the beginning.
 *
 * Waiting: a waiter adds 1 to `unitWaiters` of each of its units and then reads the bits. A loader
 * sets bits, then reads `unitWaiters`, and if there are waiters, changes Word.LoadProgress and
 * wakes them: one sees the other. Waiters for everything are not counted. Only the end and failures
 * wake them, because a load of 2 GiB took a third longer when each unit did.
 *
 * A claim is in a slot of its thread, so that another thread can give it back (dead-threads.ts):
 * the unit before `started` is set, the bits of its pages right after. In between the thread makes
 * no call, and so cannot end (450 terminated Workers). Failed pages that a thread forgets or tries
 * again are in a slot too, with the unit negated.
 */
import { bitCount, forEachWord } from "../pages/bits.ts";
import { type Control, wakeWaiters, Word } from "../control/control.ts";
import { reach } from "../control/interleave.ts";
import { THREAD_ID } from "../threads/thread.ts";
import { ChecksumColumn } from "./checksum-column.ts";
import { recoverDeadClaims } from "./dead-threads.ts";
import { DemandBoard } from "./demand.ts";
import { ErrorTable } from "./error-table.ts";
import { LoadGroup } from "./group.ts";
import {
  type Checksums,
  createLoad,
  isWhole,
  type LoadHandle,
  type LoadPlan,
  type LoadTables,
  LoadWord,
  openLoadTables,
  PAGES_PER_UNIT,
  SLOT_WORDS,
  SLOTS,
  shareChecksums,
  skipPages,
  WORDS_PER_UNIT,
} from "./load-tables.ts";
import { Places } from "./places.ts";

/** `unitError` of a unit with a damaged page, a content that ended early, or a damaged frame. */
export const ERROR_CHECKSUM = -1;
export const ERROR_SHORT = -2;
export const ERROR_FRAME = -3;

/** A thread's claim of one unit, and its outcome. */
export interface ClaimedPages {
  readonly unit: number;
  /** Bits of the unit's pages; `fail` leaves those of the good ones. */
  readonly want: Int32Array;
  readonly count: number;
  /** Bits of pages that could not be read or are damaged, and of the damaged ones alone. */
  readonly bad: Int32Array;
  readonly mismatched: Int32Array;
  readonly badCount: number;
  /**
   * The reason why the first of them could not be read: a number of the error table, or ERROR_….
   */
  readonly error: number;
}

export class LoadState {
  readonly handle: LoadHandle;
  readonly tables: LoadTables;
  readonly words: Int32Array;
  readonly unitCount: number;
  readonly group: LoadGroup;
  readonly places: Places;
  /** Null if the format has no checksums, or there is nothing to load. */
  checksums: ChecksumColumn | null;
  readonly demands: DemandBoard;
  readonly errors: ErrorTable;
  /** The claims of `drop` and others: reused, because every decRef during a load calls them. */
  private readonly dropped = new Int32Array(WORDS_PER_UNIT);

  constructor(handle: LoadHandle) {
    const tables = openLoadTables(handle.tables);
    this.handle = handle;
    this.tables = tables;
    this.words = tables.words;
    this.unitCount = tables.unitCount;
    this.group = new LoadGroup(handle.group);
    this.places = new Places(handle.map, tables, handle.mappedExtents);
    this.checksums = handle.checksums === null ? null : new ChecksumColumn(handle.checksums);
    this.demands = new DemandBoard(tables, this.group, handle.index);
    this.errors = new ErrorTable(tables.errors);
  }

  static create(plan: LoadPlan): LoadState {
    return new LoadState(createLoad(plan));
  }

  /** The load checks its pages with these. Precondition: it has not begun. */
  useChecksums(checksums: Checksums): void {
    this.handle.checksums = shareChecksums(checksums);
    this.checksums = new ChecksumColumn(this.handle.checksums);
  }

  /**
   * Pages [start, end), which have contents, are mapped and need no check. Precondition: the load
   * has not begun.
   */
  skip(start: number, end: number): void {
    skipPages(this.tables, start, end);
  }

  /** True while pages are outstanding that will be loaded. */
  get isLoading(): boolean {
    return this.words[LoadWord.PendingPages]! > 0 && this.words[LoadWord.Stop] === 0;
  }

  /** True when no contents are needed any more: nothing is outstanding, and nothing has failed. */
  get isComplete(): boolean {
    return this.words[LoadWord.PendingPages] === 0 && this.words[LoadWord.FailedPages] === 0;
  }

  /** One past the last unit that [.., end) touches. New pages of a grown file have none. */
  lastUnitOf(end: number): number {
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
    const { unitPending, unitError, loaded } = this.tables;
    const last = this.lastUnitOf(end);
    for (let unit = Math.floor(start / PAGES_PER_UNIT); unit < last; unit++) {
      if (Atomics.load(unitPending, unit) === 0 && unitError[unit] === 0) continue;
      const from = Math.max(start, unit * PAGES_PER_UNIT);
      const to = Math.min(end, (unit + 1) * PAGES_PER_UNIT);
      let every = true;
      this.forEachWord(from, to, (word, mask) => {
        if (every && (Atomics.load(loaded, word) & mask) !== mask) every = false;
      });
      if (!every) return false;
    }
    return true;
  }

  /** The first failed page in [start, end), or -1. */
  failedPage(start = 0, end = this.words[LoadWord.SizePages]!): number {
    if (this.words[LoadWord.FailedPages] === 0) return -1;
    const { failed, loaded } = this.tables;
    let found = -1;
    this.forEachWord(start, end, (word, mask) => {
      if (found >= 0) return;
      const bits = Atomics.load(failed, word) & ~Atomics.load(loaded, word) & mask;
      if (bits !== 0) found = (word << 5) + 31 - Math.clz32(bits & -bits);
    });
    return found;
  }

  /** Why `page` failed: a number of the error table, or ERROR_…. */
  errorOf(page: number): number {
    const { mismatched, unitError } = this.tables;
    if ((Atomics.load(mismatched, page >>> 5) & (1 << (page & 31))) !== 0) return ERROR_CHECKSUM;
    return Atomics.load(unitError, Math.floor(page / PAGES_PER_UNIT));
  }

  /** A slot for a claim of this thread. */
  takeSlot(): number {
    const { slots } = this.tables;
    for (let attempt = 0; attempt < 2; attempt++) {
      for (let slot = 0; slot < SLOTS; slot++) {
        if (Atomics.compareExchange(slots, slot * SLOT_WORDS, 0, THREAD_ID) === 0) return slot;
      }
      recoverDeadClaims(this);
    }
    throw new Error(`More than ${SLOTS} claims at once`);
  }

  freeSlot(slot: number): void {
    Atomics.store(this.tables.slots, slot * SLOT_WORDS, 0);
  }

  /**
   * Claims the pages of `want` (one unit's bits) that no thread has started. The claimed bits
   * replace `want`. Returns how many. The slot has them until `publish` or `fail`.
   */
  claim(slot: number, unit: number, want: Int32Array): number {
    const { slots, started } = this.tables;
    const at = slot * SLOT_WORDS;
    slots.fill(0, at + 2, at + SLOT_WORDS);
    Atomics.store(slots, at + 1, unit + 1);
    let count = 0;
    for (let i = 0; i < WORDS_PER_UNIT; i++) {
      const word = unit * WORDS_PER_UNIT + i;
      // The slot has only this thread's pages, so it never gives back another thread's.
      const free = want[i]! & ~Atomics.load(started, word);
      const mine = free === 0 ? 0 : free & ~Atomics.or(started, word, free);
      want[i] = slots[at + 2 + i] = mine;
      count += bitCount(mine);
    }
    if (count === 0) Atomics.store(slots, at + 1, 0);
    return count;
  }

  /** Gives a claim back, with its pages unread. */
  unclaim(slot: number, unit: number, claimed: Int32Array): void {
    const { slots, started } = this.tables;
    const at = slot * SLOT_WORDS;
    for (let i = 0; i < WORDS_PER_UNIT; i++) {
      Atomics.and(started, unit * WORDS_PER_UNIT + i, ~claimed[i]!);
      slots[at + 2 + i] = 0;
    }
    Atomics.store(slots, at + 1, 0);
  }

  /** Publishes the claimed pages, which are in place. */
  publish(control: Control, slot: number, unit: number, claimed: Int32Array, count: number): void {
    this.setLoaded(unit, claimed);
    reach("load: bits set");
    Atomics.add(this.words, LoadWord.LoadedPages, count);
    this.tally(control, slot, unit, count);
  }

  private setLoaded(unit: number, pages: Int32Array): void {
    const { loaded } = this.tables;
    for (let i = 0; i < WORDS_PER_UNIT; i++) {
      if (pages[i] !== 0) Atomics.or(loaded, unit * WORDS_PER_UNIT + i, pages[i]!);
    }
  }

  /** Some of the claimed pages (at least one) are bad. Publishes the others. */
  fail(control: Control, slot: number, claim: ClaimedPages): void {
    const { unit, want, count, bad, mismatched, badCount, error } = claim;
    const { tables, words } = this;
    // A page that could be read has its own bit; the word is for the others.
    if (error !== ERROR_CHECKSUM || Atomics.load(tables.unitError, unit) === 0)
      Atomics.store(tables.unitError, unit, error);
    Atomics.add(words, LoadWord.FailedPages, badCount);
    Atomics.add(words, LoadWord.LoadedPages, count - badCount);
    for (let i = 0; i < WORDS_PER_UNIT; i++) {
      const word = unit * WORDS_PER_UNIT + i;
      if (bad[i] !== 0) {
        Atomics.and(tables.mismatched, word, ~bad[i]!);
        Atomics.or(tables.mismatched, word, mismatched[i]!);
        Atomics.or(tables.failed, word, bad[i]!);
        // Not this thread's any more: they may be tried again before it is found dead.
        tables.slots[slot * SLOT_WORDS + 2 + i]! &= ~bad[i]!;
      }
      want[i]! &= ~bad[i]!;
    }
    this.setLoaded(unit, want);
    this.tally(control, slot, unit, count, badCount);
  }

  private tally(control: Control, slot: number, unit: number, count: number, badCount = 0): void {
    const { unitPending, unitWaiters, slots } = this.tables;
    this.countArrived(control, count - badCount);
    Atomics.sub(unitPending, unit, count);
    if (Atomics.sub(this.words, LoadWord.PendingPages, count) === count) this.end(control);
    // Last, so that no count is about to change while no living thread has a claim.
    Atomics.store(slots, slot * SLOT_WORDS + 1, 0);
    if (badCount > 0 || Atomics.load(unitWaiters, unit) > 0) wakeWaiters(control);
  }

  /** `pages` more pages need no load. The last one makes the file an ordinary one. */
  countArrived(control: Control, pages: number): void {
    if (pages > 0 && Atomics.sub(this.words, LoadWord.MissingPages, pages) === pages)
      Atomics.store(control.words, Word.Loading, 0);
  }

  /** No page is pending any more. */
  end(control: Control): void {
    reach("load: none pending");
    this.group.wake();
    wakeWaiters(control);
  }

  /**
   * Drops the pages of [start, end) that no thread has started, and forgets their failures: their
   * next owner gets new pages. True if something is still being read into the range.
   */
  cancel(control: Control, start: number, end: number): boolean {
    const last = this.lastUnitOf(end);
    for (let unit = Math.floor(start / PAGES_PER_UNIT); unit < last; unit++) {
      const from = Math.max(start, unit * PAGES_PER_UNIT);
      this.drop(control, unit, from, Math.min(end, (unit + 1) * PAGES_PER_UNIT));
    }
    const { failed, loaded } = this.tables;
    let inFlight = false;
    this.forEachWord(start, end, (word, mask) => {
      if ((mask & Atomics.load(failed, word)) !== 0) this.forgetFailures(control, word, mask);
      if ((mask & ~Atomics.load(loaded, word)) !== 0) inFlight = true;
    });
    return inFlight;
  }

  /** Within one unit, with a claim as if to read it, so that it can be given back. */
  private drop(control: Control, unit: number, start: number, end: number): void {
    const want = this.dropped.fill(0);
    let free = 0;
    this.forEachWord(start, end, (word, mask) => {
      want[word % WORDS_PER_UNIT] = mask;
      free |= mask & ~Atomics.load(this.tables.started, word);
    });
    if (free === 0) return;
    const slot = this.takeSlot();
    const count = this.claim(slot, unit, want);
    if (count > 0) {
      reach("drop: claimed");
      this.setLoaded(unit, want);
      this.tally(control, slot, unit, count);
    }
    this.freeSlot(slot);
  }

  /**
   * Takes failed pages of a bitmap word, for `use` to count and to change. They are in a slot
   * meanwhile. Returns how many.
   */
  private takeFailed(
    word: number,
    mask: number,
    use: (bits: number, pages: number, place: number) => void,
  ): number {
    const { failed, slots } = this.tables;
    const slot = this.takeSlot();
    const at = slot * SLOT_WORDS;
    const place = at + 2 + (word % WORDS_PER_UNIT);
    slots.fill(0, at + 2, at + SLOT_WORDS);
    Atomics.store(slots, at + 1, -(Math.floor(word / WORDS_PER_UNIT) + 1));
    const taken = mask & Atomics.and(failed, word, ~mask);
    slots[place] = taken;
    reach("failed: taken");
    const pages = bitCount(taken);
    if (pages > 0) use(taken, pages, place);
    Atomics.store(slots, at + 1, 0);
    this.freeSlot(slot);
    return pages;
  }

  private forgetFailures(control: Control, word: number, mask: number): void {
    const { words } = this;
    this.takeFailed(word, mask, (bits, pages) => {
      Atomics.or(this.tables.loaded, word, bits);
      this.countArrived(control, pages);
      const left = Atomics.sub(words, LoadWord.FailedPages, pages) - pages;
      if (left === 0 && Atomics.load(words, LoadWord.PendingPages) === 0) this.end(control);
    });
  }

  /**
   * Makes the failed pages of [start, end) pending again, so that they can be claimed. Returns how
   * many. `unitError` stays: it is read only beside a failed bit, and keeps `isLoaded` from
   * trusting the unit's count alone.
   */
  retry(start: number, end: number): number {
    const { words, tables } = this;
    Atomics.add(words, LoadWord.Revision, 1);
    let count = 0;
    this.forEachWord(start, end, (word, mask) => {
      if ((mask & Atomics.load(tables.failed, word)) === 0) return;
      count += this.takeFailed(word, mask, (bits, pages, place) => {
        // Pending before claimable, because a page that is not counted must not be finished.
        Atomics.add(words, LoadWord.PendingPages, pages);
        Atomics.add(tables.unitPending, Math.floor(word / WORDS_PER_UNIT), pages);
        Atomics.sub(words, LoadWord.FailedPages, pages);
        // Right after that, another thread may claim them.
        Atomics.and(tables.started, word, ~bits);
        tables.slots[place] = 0;
        this.demands.want(word, bits);
      });
    });
    if (count > 0) this.demands.ring();
    return count;
  }

  /** Adds or removes a waiter. */
  countWaiter(start: number, end: number, change: 1 | -1): void {
    if (isWhole(this.words, start, end)) return;
    const last = this.lastUnitOf(end);
    for (let unit = Math.floor(start / PAGES_PER_UNIT); unit < last; unit++)
      Atomics.add(this.tables.unitWaiters, unit, change);
  }
}
