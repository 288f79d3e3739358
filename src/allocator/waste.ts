/**
 * Waste: takes it from an allocator's runs for release, in batches, and makes it free when its memory is the kernel's again.
 *
 * A batch is taken with the lock held, and decommitted without it: `take`, then the caller decommits the pieces, then
 * `finish`. What never was committed is free at once: one look at the file's data (`Backing.nextData`) tells that for all
 * waste up to there, and no call of the kernel follows, so a thousand small ranges that nobody touched cost one look.
 * The look holds for what was waste when it was made, for nobody may touch waste; hence all within one hold of the lock.
 *
 * Small pages go first, since huge ones are dear; the lowest first, since a look sees upwards and bottom-up allocations
 * want those. Huge pages go one run at a time, the highest first, as in gVisor (sub-release depends on where runs are cut).
 */
import { Word } from "../control/control.ts";
import { PAGES_PER_HUGE_PAGE } from "../pages/units.ts";
import type { Allocator } from "./allocator.ts";
import { FREE, HELD, HUGE, SUB_RELEASED, stateOf, WASTE } from "./states.ts";

/** 128 MiB: the most that gVisor releases at once, and so where it cuts ranges that span several huge pages. */
const HUGE_RELEASE_PAGES = 64 * PAGES_PER_HUGE_PAGE;
/** What one hold of the lock is limited to, so that others have it again within 100 µs: pieces and looks, and runs without either. */
const PIECES_MAX = 64;
const RUNS_MAX = 512;

/**
 * The `group` of sub-released runs says whether they count towards freeing their huge page. When one release spans several
 * huge pages, gVisor does not count the pages at its ragged ends (releaseLocked returns without storing the new count), so
 * such a huge page's addresses stay out of use; its memory is given back all the same. Placement is to be gVisor's to the
 * page, so we do not count them either.
 */
const COUNTED = 0;
const UNCOUNTED = 1;

export class WasteBatch {
  private readonly allocator: Allocator;
  private readonly starts = new Int32Array(PIECES_MAX);
  private readonly ends = new Int32Array(PIECES_MAX);
  private huge = 0;
  /** Pieces to decommit. The pages of piece i that are to be decommitted are [decommitStart(i), decommitEnd(i)). */
  count = 0;
  /** Pages that `take` took or made free. */
  pages = 0;
  /** Where to go on looking for held pages. */
  private settleFrom = 0;
  private hugeDecommitStart = 0;
  private hugeDecommitEnd = 0;

  constructor(allocator: Allocator) {
    this.allocator = allocator;
  }

  decommitStart(piece: number): number {
    return this.huge === 0 ? this.starts[piece]! : this.hugeDecommitStart;
  }

  decommitEnd(piece: number): number {
    return this.huge === 0 ? this.ends[piece]! : this.hugeDecommitEnd;
  }

  /**
   * Takes about `maxPages` pages of small waste, or a run of huge waste. False if there is none, nor anything held whose load is
   * done: all runs are looked at for that, but others have the lock in between.
   */
  take(maxPages: number): boolean {
    const { allocator } = this;
    this.count = this.pages = this.huge = 0;
    // From where the last call stopped to the end is not all of them.
    let roundsLeft = this.settleFrom > 0 ? 2 : 1;
    do {
      allocator.lock();
      try {
        if (allocator.words[Word.HeldPages] === 0) roundsLeft = 0;
        else if (!this.settleHeld()) roundsLeft--;
        this.takeSmall(maxPages);
        if (this.pages === 0) this.takeHuge();
      } finally {
        allocator.unlock();
      }
    } while (this.pages === 0 && roundsLeft > 0);
    return this.pages > 0;
  }

  private takeSmall(maxPages: number): void {
    const { set, backing } = this.allocator;
    // The first committed page behind the last look.
    let data = -1;
    let decommit = 0;
    for (
      let runs = 0, looks = 0;
      runs < RUNS_MAX && looks < PIECES_MAX && decommit < maxPages;
      runs++
    ) {
      const start = set.firstFit(WASTE, 1);
      if (start < 0) return;
      let end = set.fitEnd;
      if (data < start) {
        data = backing.nextData(start);
        looks++;
      }
      if (data >= end) {
        this.free(start, end);
      } else {
        end = Math.min(end, start + maxPages - decommit);
        this.allocator.markReleasing(start, end, 0);
        this.starts[this.count] = start;
        this.ends[this.count++] = end;
        decommit += end - start;
        // Whether more follows is not known.
        data = -1;
      }
      this.pages += end - start;
    }
  }

  private takeHuge(): void {
    const { set } = this.allocator;
    const run = set.lastFit(WASTE | HUGE, 1);
    if (run < 0) return;
    const end = set.endOf(run);
    const start = Math.max(run, end - HUGE_RELEASE_PAGES);
    this.allocator.markReleasing(start, end, HUGE);
    this.huge = HUGE;
    this.starts[0] = this.hugeDecommitStart = start;
    this.ends[0] = this.hugeDecommitEnd = end;
    this.count = 1;
    this.pages = end - start;
    this.extendOverSubReleased();
  }

  /** Widens what is decommitted to whole huge pages, where all their other pages are sub-released already. */
  private extendOverSubReleased(): void {
    const start = this.hugeDecommitStart;
    const end = this.hugeDecommitEnd;
    const first = start - (start % PAGES_PER_HUGE_PAGE);
    const last = Math.ceil(end / PAGES_PER_HUGE_PAGE) * PAGES_PER_HUGE_PAGE;
    // A huge page that is released in its middle is whole only if both its sides are sub-released.
    const before = this.isSubReleased(first, start);
    const after = this.isSubReleased(end, last);
    const single = last - first === PAGES_PER_HUGE_PAGE;
    if (before && (!single || after)) this.hugeDecommitStart = first;
    if (after && (!single || before)) this.hugeDecommitEnd = last;
  }

  private isSubReleased(start: number, end: number): boolean {
    if (start === end) return true;
    const { set } = this.allocator;
    const run = set.startOf(start);
    return (
      set.tagAt(run) === (SUB_RELEASED | HUGE) &&
      set.groupAt(run) === COUNTED &&
      set.endOf(run) >= end
    );
  }

  /** The pieces are decommitted: their pages become free, or sub-released within a huge page. */
  finish(): void {
    const { allocator } = this;
    if (this.count === 0) return;
    allocator.lock();
    try {
      if (this.huge !== 0) this.finishHuge();
      else for (let i = 0; i < this.count; i++) this.free(this.starts[i]!, this.ends[i]!);
      allocator.endReleasing();
    } finally {
      allocator.unlock();
    }
  }

  private finishHuge(): void {
    const { set, words, backing } = this.allocator;
    const start = this.starts[0]!;
    const end = this.ends[0]!;
    const freeStart = Math.ceil(this.hugeDecommitStart / PAGES_PER_HUGE_PAGE) * PAGES_PER_HUGE_PAGE;
    const freeEnd = this.hugeDecommitEnd - (this.hugeDecommitEnd % PAGES_PER_HUGE_PAGE);
    const single =
      Math.floor(start / PAGES_PER_HUGE_PAGE) === Math.floor((end - 1) / PAGES_PER_HUGE_PAGE);
    set.assign(start, end, SUB_RELEASED | HUGE, 0, single ? COUNTED : UNCOUNTED);
    if (freeStart < freeEnd) set.assign(freeStart, freeEnd, FREE | HUGE);
    words[Word.WastePages]! -= end - start;
    backing.uncommitted(this.hugeDecommitStart, this.hugeDecommitEnd);
  }

  private free(start: number, end: number): void {
    const { set, words, backing } = this.allocator;
    set.replace(start, end, FREE, 0, 0);
    words[Word.WastePages]! -= end - start;
    backing.uncommitted(start, end);
  }

  /** Of the next runs, held pages whose loads are done become waste. False at the last run: the next call begins anew. */
  private settleHeld(): boolean {
    const { set, words, backing } = this.allocator;
    let run = this.settleFrom < set.size ? set.startOf(this.settleFrom) : 0;
    for (let runs = 0; runs < RUNS_MAX && run < set.size; runs++) {
      const next = set.endOf(run);
      const tag = set.tagAt(run);
      if (stateOf(tag) === HELD && backing.isSettled(run, next)) {
        set.replace(run, next, WASTE | (tag & HUGE), 0, 0);
        words[Word.HeldPages]! -= next - run;
      }
      run = next;
    }
    this.settleFrom = run < set.size ? run : 0;
    return this.settleFrom > 0;
  }
}
