/**
 * Placement and references of pages, over the runs of one SegmentSet that every thread of the file
 * shares. waste.ts releases pages without references. This file does not touch page contents; the
 * callbacks of Backing map memory and ask the kernel about it.
 *
 * Every method that is not marked "lock held" takes the file's lock. Numbers are pages, not bytes.
 *
 * Placement is gVisor's: bottom-up takes the first pages of the lowest gap that is large enough,
 * top-down the last pages of the highest. An allocation that will commit its pages searches waste
 * first. When nothing fits, the file grows by whole chunks; free pages at the end of a last chunk
 * of the same kind count as part of them. Source: findAllocatableAndMarkUsed, extendChunksLocked
 * and releaseLocked in gVisor's pgalloc.go.
 */
import { assert, checksStructures, OutOfMemoryError } from "../errors/errors.ts";
import { SegmentSet } from "../segment/segment-set.ts";
import { type Control, Field, ParticipantWord, Word } from "../control/control.ts";
import { acquireLock, FileFailedError, markFailed, releaseLock } from "../control/lock.ts";
import { slotWord } from "../control/participants.ts";
import { reach } from "../control/interleave.ts";
import { type Backing, Placement, type RunVisitor } from "./backing.ts";
import { PAGE_SIZE, PAGES_PER_CHUNK } from "../pages/units.ts";
import { checkAllocator, expectCounts, expectGap } from "./check.ts";
import { recoverTables, returnDeadReleases } from "./recover.ts";
import {
  FREE,
  HELD,
  HUGE,
  KIND_SHIFT,
  RELEASING,
  SEARCHED_CLASSES,
  stateOf,
  USED,
  WASTE,
} from "./states.ts";
import { TableMemory } from "./tables.ts";

const MAX_REFS = 2 ** 31 - 1;
/** The first views serve 4 GiB: the view that every thread needs has a byte for each page. */
const FIRST_VIEW_PAGES = 4 * PAGES_PER_CHUNK;

export class Allocator {
  readonly set: SegmentSet;
  readonly words: Int32Array<SharedArrayBuffer>;
  private readonly fields: Float64Array<SharedArrayBuffer>;
  /** This thread's participant slot. It records the pages that the thread is releasing. */
  readonly slot: number;
  private readonly tables: TableMemory;
  readonly backing: Backing;
  private readonly capacityPages: number;
  private readonly limitPages: number;
  /** Pages that this thread's views of the tables serve: doubled, so few chunks need new views. */
  private viewedPages: number;

  /** True if the last `allocate` recycled waste. The caller must zero it. */
  recycled = false;

  /** `tables` is new (zeroed) or attached; `slot` is this thread's participant slot. */
  constructor(control: Control, tables: TableMemory, slot: number, backing: Backing) {
    this.words = control.words;
    this.fields = control.fields;
    this.slot = slot;
    this.tables = tables;
    this.backing = backing;
    this.capacityPages = control.fields[Field.CapacityPages]!;
    this.limitPages = control.fields[Field.LimitPages]!;
    this.viewedPages = Math.min(FIRST_VIEW_PAGES, this.capacityPages);
    this.set = new SegmentSet(tables.layout, tables.view(this.viewedPages));
  }

  static createTables(capacityPages: number): TableMemory {
    return TableMemory.create(capacityPages, SEARCHED_CLASSES);
  }

  static attachTables(address: number, capacityPages: number): TableMemory {
    return TableMemory.attach(address, capacityPages, SEARCHED_CLASSES);
  }

  static tableBytes(capacityPages: number): number {
    return TableMemory.byteLength(capacityPages, SEARCHED_CLASSES);
  }

  /**
   * Takes the lock. Then this thread's views reach as far as the file, and the tables are repaired
   * if a thread died inside.
   */
  lock(): void {
    const inherited = acquireLock(this.words);
    // Other threads may have changed the run that this thread found last.
    if (this.words[Word.Shared] !== 0) this.set.forget();
    const size = this.words[Word.SizePages]!;
    if (size !== this.set.size) this.viewTables(size);
    if (inherited) this.recover();
  }

  /** Lock held, inherited from a dead thread. */
  private recover(): void {
    try {
      // One chunk more: a thread that died while the file grew may have begun a run there.
      this.viewedPages = Math.min(
        this.words[Word.SizePages]! + PAGES_PER_CHUNK,
        this.capacityPages,
      );
      this.set.useTables(this.tables.view(this.viewedPages));
      recoverTables(this.set, this.words);
      expectCounts(this.words);
      this.backing.recovered(this.set);
    } catch (error) {
      markFailed(this.words);
      this.unlock();
      throw new FileFailedError({ cause: error });
    }
  }

  /** Takes back the pages that dead threads were decommitting. True if there were any. */
  reclaimFromDead(): boolean {
    this.lock();
    try {
      return returnDeadReleases(this.set, this.words);
    } finally {
      this.unlock();
    }
  }

  /** Lock held. Makes waste releasing, recorded first in this thread's slot. */
  markReleasing(start: number, end: number, huge: number): void {
    const { words } = this;
    const at = slotWord(this.slot);
    words[at + ParticipantWord.ReleasesHuge] = huge === 0 ? 0 : 1;
    if (words[at + ParticipantWord.ReleaseEnd] === 0)
      words[at + ParticipantWord.ReleaseStart] = start;
    words[at + ParticipantWord.ReleaseEnd] = end;
    this.set.replace(start, end, RELEASING | huge, this.slot + 1, 0);
  }

  /** Lock held. */
  endReleasing(): void {
    this.words[slotWord(this.slot) + ParticipantWord.ReleaseEnd] = 0;
  }

  unlock(): void {
    releaseLock(this.words);
  }

  private viewTables(size: number): void {
    if (size > this.viewedPages) {
      this.viewedPages = Math.min(Math.max(size, 2 * this.viewedPages), this.capacityPages);
      this.set.useTables(this.tables.view(this.viewedPages));
    }
    this.set.size = size;
  }

  /**
   * Finds `pages` pages and gives them `tag` (used, page size, kind), `group` and one reference.
   * Returns the first page; -1 if nothing fits and the file may not grow. See `recycled`. `how` is
   * a sum of values of Placement: a number, because every allocation calls this.
   */
  allocate(pages: number, tag: number, group: number, how: number): number {
    this.lock();
    try {
      const huge = tag & HUGE;
      const topDown = (how & Placement.TopDown) !== 0;
      let start = -1;
      if ((how & Placement.Recycle) !== 0) start = this.find(WASTE | huge, pages, topDown);
      this.recycled = start >= 0;
      if (this.recycled) {
        this.words[Word.WastePages]! -= pages;
      } else {
        this.checkLimit(pages);
        start = this.find(FREE | huge, pages, topDown);
        if (start < 0) {
          if ((how & Placement.Grow) === 0) return -1;
          this.growFor(pages, huge);
          start = this.find(FREE | huge, pages, topDown);
        }
      }
      const { fitEnd } = this.set;
      if (checksStructures)
        expectGap(this.set, start, fitEnd, (this.recycled ? WASTE : FREE) | huge, pages);
      const at = topDown ? fitEnd - pages : start;
      this.set.replaceIn(start, fitEnd, at, at + pages, tag, 1, group | 0);
      this.words[Word.UsedPages]! += pages;
      this.fields[Field.Allocations]!++;
      this.fields[Field.AllocatedPages]! += pages;
      return at;
    } finally {
      this.unlock();
    }
  }

  /** The run of class `cls` that `pages` pages go into, or -1. */
  private find(cls: number, pages: number, topDown: boolean): number {
    return topDown ? this.set.lastFit(cls, pages) : this.set.firstFit(cls, pages);
  }

  private checkLimit(pages: number): void {
    const taken = this.words[Word.UsedPages]! + this.words[Word.WastePages]!;
    if (taken + pages > this.limitPages) this.throwOutOfMemory(pages, taken);
  }

  private throwOutOfMemory(pages: number, taken: number): never {
    const limitPages = Math.min(this.limitPages, this.capacityPages);
    throw new OutOfMemoryError(pages * PAGE_SIZE, limitPages * PAGE_SIZE, taken * PAGE_SIZE);
  }

  private growFor(pages: number, huge: number): void {
    const { set } = this;
    let tail = 0;
    if (set.size > 0) {
      const last = set.startOf(set.size - 1);
      if (set.tagAt(last) === (FREE | huge)) tail = set.lengthAt(last);
    }
    const chunks = Math.ceil((pages - tail) / PAGES_PER_CHUNK);
    assert(set.size % PAGES_PER_CHUNK === 0, () => `${set.size} pages are not whole chunks`);
    if (set.size + chunks * PAGES_PER_CHUNK > this.capacityPages)
      this.throwOutOfMemory(pages, this.words[Word.UsedPages]!);
    this.addChunks(chunks, huge);
  }

  /** Lock held. Grows the file by free chunks. */
  private addChunks(chunks: number, huge: number): void {
    this.growTables(chunks, huge);
    this.set.extend(chunks * PAGES_PER_CHUNK, FREE | huge);
    reach("grow: chunks mapped");
    Atomics.store(this.words, Word.SizePages, this.set.size);
  }

  /**
   * Lock held. Maps more chunks and makes the tables reach as far. The set does not have them yet.
   */
  growTables(chunks: number, huge: number): void {
    const { size } = this.set;
    this.backing.grow(chunks, huge !== 0);
    this.viewTables(size + chunks * PAGES_PER_CHUNK);
    this.set.size = size;
  }

  /** Adds a reference to each page. Precondition: each page of [start, end) has one. */
  incRef(start: number, end: number): void {
    this.lock();
    try {
      const { set } = this;
      for (let at = start, next = 0; at < end; at = next) {
        set.seek(at);
        const { runStart: run, runEnd } = set;
        // Usually one run, which is checked once. Nothing may change before all runs are checked.
        if (at === start) this.checkReferenced(start, end, MAX_REFS - 1, run, runEnd);
        next = Math.min(runEnd, end);
        set.addRefsIn(run, runEnd, at, next, 1);
      }
    } finally {
      this.unlock();
    }
  }

  /**
   * Drops a reference of each page. Precondition: each page of [start, end) has one. True if pages
   * became waste.
   */
  decRef(start: number, end: number): boolean {
    this.lock();
    try {
      const { set } = this;
      let wasted = false;
      for (let at = start, next = 0; at < end; at = next) {
        set.seek(at);
        const { runStart: run, runEnd } = set;
        if (at === start) this.checkReferenced(start, end, MAX_REFS, run, runEnd);
        next = Math.min(runEnd, end);
        if (set.refsAt(run) > 1) {
          set.addRefsIn(run, runEnd, at, next, -1);
        } else {
          this.discard(run, runEnd, at, next);
          wasted = true;
        }
      }
      return wasted;
    } finally {
      this.unlock();
    }
  }

  /** [start, end) of the run [run, runEnd) has lost its last references. */
  private discard(run: number, runEnd: number, start: number, end: number): void {
    const { words, set } = this;
    // Stored before the runs change, because this thread may die in between.
    words[Word.Discards]!++;
    const held = words[Word.Loading] !== 0 && this.backing.cancelLoad(start, end);
    set.replaceIn(run, runEnd, start, end, (held ? HELD : WASTE) | (set.tagAt(run) & HUGE), 0, 0);
    words[Word.UsedPages]! -= end - start;
    words[Word.WastePages]! += end - start;
    if (held) words[Word.HeldPages]! += end - start;
    else this.backing.discarded?.(start, end);
  }

  /**
   * Lock held. Throws unless every page has between 1 and `maxRefs` references. [first, firstEnd)
   * is the run of `start`.
   */
  private checkReferenced(
    start: number,
    end: number,
    maxRefs: number,
    first: number,
    firstEnd: number,
  ): void {
    const { set } = this;
    for (let run = first, runEnd = firstEnd; ; run = runEnd, runEnd = set.endOf(run)) {
      if (stateOf(set.tagAt(run)) !== USED) this.throwUnreferenced(start, end, run);
      if (set.refsAt(run) > maxRefs) {
        throw new RangeError(
          `Cannot hold more than ${MAX_REFS} references on page ${run * PAGE_SIZE}`,
        );
      }
      if (runEnd >= end) return;
    }
  }

  private throwUnreferenced(start: number, end: number, run: number): never {
    const from = Math.max(run, start) * PAGE_SIZE;
    const to = Math.min(this.set.endOf(run), end) * PAGE_SIZE;
    throw new RangeError(
      `Expected every page of [${start * PAGE_SIZE}, ${end * PAGE_SIZE}) to have a reference, ` +
        `[${from}, ${to}) has none` +
        (this.backing.whereDropped?.(from / PAGE_SIZE, to / PAGE_SIZE) ??
          "; create the file with checks: true to see where it was dropped"),
    );
  }

  /** Throws a RangeError unless every page has a reference. */
  requireReferenced(start: number, end: number): void {
    const { set } = this;
    this.lock();
    try {
      set.seek(start);
      this.checkReferenced(start, end, MAX_REFS, set.runStart, set.runEnd);
    } finally {
      this.unlock();
    }
  }

  /** True if every page has a reference. */
  areReferenced(start: number, end: number): boolean {
    const { set } = this;
    this.lock();
    try {
      for (let run = set.startOf(start); run < end; run = set.endOf(run))
        if (stateOf(set.tagAt(run)) !== USED) return false;
      return true;
    } finally {
      this.unlock();
    }
  }

  /** True if every page has exactly one reference. Precondition: each has at least one. */
  hasUniqueRef(start: number, end: number): boolean {
    return this.firstShared(start, end) === null;
  }

  /**
   * The first maximal sub-range whose pages have more than one reference, or null. Precondition:
   * each page has at least one.
   */
  firstShared(start: number, end: number): { start: number; end: number } | null {
    this.lock();
    try {
      const { set } = this;
      set.seek(start);
      this.checkReferenced(start, end, MAX_REFS, set.runStart, set.runEnd);
      let first = -1;
      for (let run = set.runStart; run < end; run = set.endOf(run)) {
        const shared = set.refsAt(run) > 1;
        if (shared && first < 0) first = Math.max(run, start);
        if (!shared && first >= 0) return { start: first, end: run };
      }
      return first < 0 ? null : { start: first, end };
    } finally {
      this.unlock();
    }
  }

  /** Lock held. Every run of [0, size), in order. */
  visitRuns(visit: RunVisitor): void {
    const { set } = this;
    if (set.size === 0) return;
    set.visit(0, set.size, (start, end, tag, refs, group) =>
      visit(start, end, stateOf(tag), (tag & HUGE) !== 0, refs, tag >>> KIND_SHIFT, group >>> 0),
    );
  }

  /** Detaches this thread's views of the tables. No method may be called afterwards. */
  detach(): void {
    const { words } = this;
    // If other threads use the file, the lock may never become free.
    const isOwn = words[Word.Shared] === 0 && words[Word.Failed] === 0;
    if (checksStructures && isOwn && this.set.size > 0) checkAllocator(this.set, words);
    this.tables.detach();
  }
}
