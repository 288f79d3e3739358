/**
 * Which pages are whose: placement, references, waste and release over the runs of one SegmentSet, shared by every
 * thread that uses the file. Nothing here touches page contents; memory is mapped and decommitted by the callbacks.
 *
 * Every method that is not marked "lock held" takes the file's lock itself. Numbers are pages, not bytes.
 *
 * Placement is gVisor's: bottom-up takes the lowest gap that is large enough and its first pages, top-down the highest
 * and its last. An allocation that will commit its pages looks among waste first. When nothing fits the file grows by
 * whole chunks, of which the free pages at the end of a last chunk of the same kind are part.
 * Source: findAllocatableAndMarkUsed, extendChunksLocked and releaseLocked in gVisor's pgalloc.go.
 */
import { OutOfMemoryError } from "../errors.ts";
import { type RunColumns, SegmentSet } from "../segment/index.ts";
import { type Control, Field, Word } from "../shared/control.ts";
import { acquireLock, releaseLock } from "../shared/lock.ts";
import { PAGE_SIZE, PAGES_PER_CHUNK, PAGES_PER_HUGE_PAGE } from "../units.ts";
import { FREE, HELD, HUGE, KIND_SHIFT, RELEASING, SEARCHED_CLASSES, stateOf, SUB_RELEASED, USED, WASTE } from "./states.ts";
import { TableMemory } from "./tables.ts";

const MAX_REFS = 2 ** 31 - 1;

/** 128 MiB: the most that gVisor releases at once, and so where it cuts ranges that span several huge pages. */
const HUGE_RELEASE_PAGES = 64 * PAGES_PER_HUGE_PAGE;

/**
 * The `group` of sub-released runs says whether they count towards freeing their huge page. When one release spans several
 * huge pages, gVisor does not count the pages at its ragged ends (releaseLocked returns without storing the new count), so
 * such a huge page's addresses stay out of use; its memory is given back all the same. Placement is to be gVisor's to the
 * page, so we do not count them either.
 */
const COUNTED = 0;
const UNCOUNTED = 1;

/** What the allocator needs from the memory behind it. Called with the lock held. */
export interface Backing {
  /** Maps `chunks` more chunks at the end of the file. Throws, having changed nothing, if that cannot be. */
  grow(chunks: number, huge: boolean): void;
  /**
   * Pages lost their last reference. Cancels what a load has not started there; true if something is still being read
   * into them, so that they must be held.
   */
  cancelLoad(start: number, end: number): boolean;
  /** True once nothing is being read into the pages. */
  isSettled(start: number, end: number): boolean;
  /** The pages have been decommitted, and are about to become free or sub-released. */
  uncommitted(start: number, end: number): void;
}

export interface PlacementRequest {
  readonly pages: number;
  readonly huge: boolean;
  readonly topDown: boolean;
  /** The pages may be recycled waste, since they will be committed anyway. */
  readonly willCommit: boolean;
  readonly kind: number;
  readonly group: number;
}

/** A run in the form in which checkpoints store it. */
export type RunVisitor = (
  start: number,
  end: number,
  state: number,
  huge: boolean,
  refs: number,
  kind: number,
  group: number,
) => void;

export class Allocator {
  readonly set: SegmentSet;
  private readonly words: Int32Array<SharedArrayBuffer>;
  private readonly tables: TableMemory;
  private readonly backing: Backing;
  private readonly capacityPages: number;
  private readonly limitPages: number;
  /** Pages that this thread's views of the tables serve. */
  private viewedPages = 0;

  /** Whether the pages of the last `allocate` are recycled waste, whose contents the caller must zero. */
  recycled = false;
  /** The pages that the last `beginRelease` took: what to decommit, and what is to become free or sub-released. */
  releaseStart = 0;
  releaseEnd = 0;
  decommitStart = 0;
  decommitEnd = 0;

  /** `tables` is new (zeroed) or attached; `control` says how large the file is. */
  constructor(control: Control, tables: TableMemory, backing: Backing) {
    this.words = control.words;
    this.tables = tables;
    this.backing = backing;
    this.capacityPages = control.fields[Field.CapacityPages]!;
    this.limitPages = control.fields[Field.LimitPages]!;
    this.set = new SegmentSet(tables.layout, tables.view(0));
  }

  static createTables(capacityPages: number): TableMemory {
    return TableMemory.create(capacityPages, SEARCHED_CLASSES);
  }

  static attachTables(address: number, capacityPages: number): TableMemory {
    return TableMemory.attach(address, capacityPages, SEARCHED_CLASSES);
  }

  /** Takes the lock and sees to it that this thread's views reach as far as the file. */
  lock(): void {
    acquireLock(this.words);
    const size = this.words[Word.SizePages]!;
    if (size !== this.set.size) this.viewTables(size);
  }

  unlock(): void {
    releaseLock(this.words);
  }

  private viewTables(size: number): void {
    if (size > this.viewedPages) {
      this.set.useTables(this.tables.view(size));
      this.viewedPages = size;
    }
    this.set.size = size;
  }

  /** Finds `pages` pages, gives them one reference each, and returns the first. See `recycled`. */
  allocate(request: PlacementRequest): number {
    this.lock();
    try {
      const { pages } = request;
      const cls = request.huge ? HUGE : 0;
      if (request.willCommit) {
        const waste = this.find(WASTE | cls, pages, request.topDown);
        if (waste >= 0) {
          this.recycled = true;
          this.words[Word.WastePages]! -= pages;
          return this.use(waste, request, cls);
        }
      }
      this.recycled = false;
      this.checkLimit(pages);
      let start = this.find(FREE | cls, pages, request.topDown);
      if (start < 0) {
        this.growFor(pages, request.huge);
        start = this.find(FREE | cls, pages, request.topDown);
      }
      return this.use(start, request, cls);
    } finally {
      this.unlock();
    }
  }

  /** The first of `pages` pages of class `cls`, or -1. */
  private find(cls: number, pages: number, topDown: boolean): number {
    if (!topDown) return this.set.firstFit(cls, pages);
    const run = this.set.lastFit(cls, pages);
    return run < 0 ? -1 : run + this.set.lengthAt(run) - pages;
  }

  private use(start: number, request: PlacementRequest, cls: number): number {
    const { set } = this;
    const end = start + request.pages;
    set.split(start);
    set.split(end);
    set.retag(start, USED | cls | (request.kind << KIND_SHIFT), 1, request.group | 0);
    set.mergeAt(end);
    set.mergeAt(start);
    this.words[Word.UsedPages]! += request.pages;
    return start;
  }

  private checkLimit(pages: number): void {
    const taken = this.words[Word.UsedPages]! + this.words[Word.WastePages]!;
    if (taken + pages > this.limitPages) this.throwOutOfMemory(pages, taken);
  }

  private throwOutOfMemory(pages: number, taken: number): never {
    const limitPages = Math.min(this.limitPages, this.capacityPages);
    throw new OutOfMemoryError(pages * PAGE_SIZE, limitPages * PAGE_SIZE, taken * PAGE_SIZE);
  }

  private growFor(pages: number, huge: boolean): void {
    const { set } = this;
    let tail = 0;
    if (set.size > 0) {
      const last = set.startOf(set.size - 1);
      if (set.tagAt(last) === (FREE | (huge ? HUGE : 0))) tail = set.lengthAt(last);
    }
    const chunks = Math.ceil((pages - tail) / PAGES_PER_CHUNK);
    if (set.size + chunks * PAGES_PER_CHUNK > this.capacityPages) this.throwOutOfMemory(pages, this.words[Word.UsedPages]!);
    this.addChunks(chunks, huge);
  }

  /** Lock held. Grows the file by free chunks. */
  private addChunks(chunks: number, huge: boolean): void {
    this.growTables(chunks, huge ? HUGE : 0);
    this.set.extend(chunks * PAGES_PER_CHUNK, FREE | (huge ? HUGE : 0));
    Atomics.store(this.words, Word.SizePages, this.set.size);
  }

  /** Lock held. Maps more chunks, and sees to it that the tables reach as far; the set does not have them yet. */
  private growTables(chunks: number, huge: number): void {
    const { size } = this.set;
    this.backing.grow(chunks, huge !== 0);
    this.viewTables(size + chunks * PAGES_PER_CHUNK);
    this.set.size = size;
  }

  /** Adds a reference to each page. All of [start, end) must have one. */
  incRef(start: number, end: number): void {
    this.lock();
    try {
      this.checkReferenced(start, end, MAX_REFS - 1);
      const { set } = this;
      set.split(start);
      set.split(end);
      for (let run = start; run < end; ) {
        const next = run + set.lengthAt(run);
        set.setRefs(run, set.refsAt(run) + 1);
        set.mergeAt(run);
        run = next;
      }
      set.mergeAt(end);
    } finally {
      this.unlock();
    }
  }

  /** Drops a reference of each page. All of [start, end) must have one. True if pages became waste. */
  decRef(start: number, end: number): boolean {
    this.lock();
    try {
      this.checkReferenced(start, end, MAX_REFS);
      const { set } = this;
      set.split(start);
      set.split(end);
      let wasted = false;
      for (let run = start; run < end; ) {
        const next = run + set.lengthAt(run);
        const refs = set.refsAt(run);
        if (refs > 1) {
          set.setRefs(run, refs - 1);
        } else {
          this.discard(run, next);
          wasted = true;
        }
        set.mergeAt(run);
        run = next;
      }
      set.mergeAt(end);
      return wasted;
    } finally {
      this.unlock();
    }
  }

  private discard(start: number, end: number): void {
    const { set, words } = this;
    const huge = set.tagAt(start) & HUGE;
    const held = words[Word.Loading] !== 0 && this.backing.cancelLoad(start, end);
    set.retag(start, (held ? HELD : WASTE) | huge, 0, 0);
    words[Word.UsedPages]! -= end - start;
    words[Word.WastePages]! += end - start;
    if (held) words[Word.HeldPages]! += end - start;
  }

  /** Lock held. Throws unless every page of the range has between 1 and `maxRefs` references. */
  private checkReferenced(start: number, end: number, maxRefs: number): void {
    const { set } = this;
    for (let run = set.startOf(start); run < end; run += set.lengthAt(run)) {
      if (stateOf(set.tagAt(run)) !== USED) {
        const from = Math.max(run, start) * PAGE_SIZE;
        const to = Math.min(run + set.lengthAt(run), end) * PAGE_SIZE;
        throw new RangeError(
          `Expected every page of [${start * PAGE_SIZE}, ${end * PAGE_SIZE}) to have a reference, [${from}, ${to}) has none`,
        );
      }
      if (set.refsAt(run) > maxRefs) {
        throw new RangeError(`Cannot hold more than ${MAX_REFS} references on page ${run * PAGE_SIZE}`);
      }
    }
  }

  /** Throws a RangeError unless every page has a reference. */
  requireReferenced(start: number, end: number): void {
    this.lock();
    try {
      this.checkReferenced(start, end, MAX_REFS);
    } finally {
      this.unlock();
    }
  }

  /** True if every page has exactly one reference. All must have one. */
  hasUniqueRef(start: number, end: number): boolean {
    return this.firstShared(start, end) === null;
  }

  /** The first maximal sub-range whose pages have more than one reference, or null. All must have one. */
  firstShared(start: number, end: number): { start: number; end: number } | null {
    this.lock();
    try {
      this.checkReferenced(start, end, MAX_REFS);
      const { set } = this;
      let first = -1;
      for (let run = set.startOf(start); run < end; run += set.lengthAt(run)) {
        const shared = set.refsAt(run) > 1;
        if (shared && first < 0) first = Math.max(run, start);
        if (!shared && first >= 0) return { start: first, end: run };
      }
      return first < 0 ? null : { start: first, end };
    } finally {
      this.unlock();
    }
  }

  /**
   * Takes waste for release: the highest, small pages before huge ones, since huge pages are dear and low offsets are more
   * likely to have them. At most `maxPages` small pages or HUGE_RELEASE_PAGES huge ones. False if there is none. The caller
   * decommits [decommitStart, decommitEnd) and calls `endRelease`.
   */
  beginRelease(maxPages: number): boolean {
    this.lock();
    try {
      if (this.words[Word.HeldPages]! > 0) this.settleHeld();
      const { set } = this;
      let run = set.lastFit(WASTE, 1);
      if (run < 0) run = set.lastFit(WASTE | HUGE, 1);
      if (run < 0) return false;
      const huge = set.tagAt(run) & HUGE;
      const end = run + set.lengthAt(run);
      const start = Math.max(run, end - (huge === 0 ? maxPages : HUGE_RELEASE_PAGES));
      set.split(start);
      set.retag(start, RELEASING | huge, 0, 0);
      set.mergeAt(end);
      this.releaseStart = this.decommitStart = start;
      this.releaseEnd = this.decommitEnd = end;
      if (huge !== 0) this.extendOverSubReleased();
      return true;
    } finally {
      this.unlock();
    }
  }

  /** Widens what is decommitted to whole huge pages, where all their other pages are sub-released already. */
  private extendOverSubReleased(): void {
    const first = this.decommitStart - (this.decommitStart % PAGES_PER_HUGE_PAGE);
    const last = Math.ceil(this.decommitEnd / PAGES_PER_HUGE_PAGE) * PAGES_PER_HUGE_PAGE;
    // A huge page that is released in its middle is whole only if both its sides are sub-released.
    const before = this.isSubReleased(first, this.releaseStart);
    const after = this.isSubReleased(this.releaseEnd, last);
    const single = last - first === PAGES_PER_HUGE_PAGE;
    if (before && (!single || after)) this.decommitStart = first;
    if (after && (!single || before)) this.decommitEnd = last;
  }

  private isSubReleased(start: number, end: number): boolean {
    if (start === end) return true;
    const { set } = this;
    const run = set.startOf(start);
    return set.tagAt(run) === (SUB_RELEASED | HUGE) && set.groupAt(run) === COUNTED && run + set.lengthAt(run) >= end;
  }

  /** The pages taken by `beginRelease` are decommitted: they become free, or sub-released within a huge page. */
  endRelease(): void {
    this.lock();
    try {
      const { set } = this;
      const start = this.releaseStart;
      const end = this.releaseEnd;
      if ((set.tagAt(set.startOf(start)) & HUGE) === 0) {
        set.assign(start, end, FREE);
      } else {
        const freeStart = Math.ceil(this.decommitStart / PAGES_PER_HUGE_PAGE) * PAGES_PER_HUGE_PAGE;
        const freeEnd = this.decommitEnd - (this.decommitEnd % PAGES_PER_HUGE_PAGE);
        const single = Math.floor(start / PAGES_PER_HUGE_PAGE) === Math.floor((end - 1) / PAGES_PER_HUGE_PAGE);
        set.assign(start, end, SUB_RELEASED | HUGE, 0, single ? COUNTED : UNCOUNTED);
        if (freeStart < freeEnd) set.assign(freeStart, freeEnd, FREE | HUGE);
      }
      this.words[Word.WastePages]! -= end - start;
      this.backing.uncommitted(this.decommitStart, this.decommitEnd);
    } finally {
      this.unlock();
    }
  }

  /** Lock held. Held pages whose loads are done become waste. */
  private settleHeld(): void {
    const { set } = this;
    for (let run = 0; run < set.size; run += set.lengthAt(run)) {
      const next = run + set.lengthAt(run);
      const tag = set.tagAt(run);
      if (stateOf(tag) === HELD && this.backing.isSettled(run, next)) {
        set.retag(run, WASTE | (tag & HUGE), 0, 0);
        set.mergeAt(next);
        set.mergeAt(run);
        this.words[Word.HeldPages]! -= next - run;
        run = set.startOf(run);
      }
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

  /**
   * Grows the file by `chunkHuge.length` chunks (1: of huge pages) that hold `runs`, in one pass; `tag` is their state and
   * kind, without HUGE. Precondition: runs are ordered, disjoint, and each within chunks of one page size.
   */
  restore(chunkHuge: Uint8Array, runs: RunColumns & { readonly tag: Uint32Array }): void {
    const { set } = this;
    this.lock();
    try {
      let row = 0;
      for (let chunk = 0; chunk < chunkHuge.length; ) {
        const huge = chunkHuge[chunk]! & HUGE;
        let end = chunk + 1;
        while (end < chunkHuge.length && chunkHuge[end] === chunkHuge[chunk]) end++;
        const pages = (end - chunk) * PAGES_PER_CHUNK;
        if (huge !== 0) {
          const limit = set.size + pages;
          for (let i = row; i < runs.start.length && runs.start[i]! < limit; i++) runs.tag[i]! |= HUGE;
        }
        this.growTables(end - chunk, huge);
        row = set.extendWith(pages, FREE | huge, runs, row);
        Atomics.store(this.words, Word.SizePages, set.size);
        chunk = end;
      }
      for (let i = 0; i < row; i++) {
        if (stateOf(runs.tag[i]!) === USED) this.words[Word.UsedPages]! += runs.length[i]!;
        if (stateOf(runs.tag[i]!) === WASTE) this.words[Word.WastePages]! += runs.length[i]!;
      }
    } finally {
      this.unlock();
    }
  }

  /** Detaches this thread's views of the tables. No method may be called afterwards. */
  detach(): void {
    this.tables.detach();
  }
}
