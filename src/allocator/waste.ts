/**
 * Takes waste from an allocator's runs in batches, and makes it free once the kernel has its memory
 * back.
 *
 * `take` marks a batch as releasing, with the lock held. The caller then decommits its pieces
 * without the lock, and `finish` makes them free. Several threads may release at once, each with a
 * batch of its own.
 *
 * `take` itself frees waste that was never committed: one look at the file's data
 * (`Backing.nextData`) shows how far the memory is untouched, so a thousand small ranges cost one
 * look and no other system call. The result is valid while the lock is held, because no thread may
 * touch waste.
 *
 * Small pages go first, because releasing huge pages is expensive. The lowest go first, because a
 * look searches upwards. Huge pages go one run at a time, the highest first, as in gVisor: the
 * places where runs are cut decide which pages are sub-released.
 */
import { Word } from "../control/control.ts";
import { reach } from "../control/interleave.ts";
import { PAGES_PER_HUGE_PAGE } from "../pages/units.ts";
import type { Allocator } from "./allocator.ts";
import { expectCounts, expectReleasing } from "./check.ts";
import { FREE, HELD, HUGE, SUB_RELEASED, stateOf, WASTE } from "./states.ts";

/** 128 MiB, the most that gVisor releases at once: it cuts longer ranges of huge pages there. */
const HUGE_RELEASE_PAGES = 64 * PAGES_PER_HUGE_PAGE;
/**
 * Limits of one critical section, so that it takes less than 100 µs: pieces and looks, and runs
 * that need neither.
 */
const PIECES_MAX = 64;
const RUNS_MAX = 512;

/**
 * The `group` of a sub-released run says whether the run counts towards freeing its huge page.
 * gVisor does not count the ragged ends of a release that spans several huge pages (releaseLocked
 * returns before it stores the count). The addresses of such a huge page stay out of use, although
 * the kernel has its memory back. The library does the same, because placement must equal gVisor's
 * to the page.
 */
export const COUNTED = 0;
const UNCOUNTED = 1;

export class WasteBatch {
  private readonly allocator: Allocator;
  private readonly starts = new Int32Array(PIECES_MAX);
  private readonly ends = new Int32Array(PIECES_MAX);
  private huge = 0;
  /**
   * Number of pieces. The caller decommits pages [decommitStart(i), decommitEnd(i)) of each piece
   * i.
   */
  count = 0;
  /** Pages that `take` took or made free. */
  pages = 0;
  /** The page at which the next search for held pages starts. */
  private heldFrom = 0;
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
   * Takes about `maxPages` pages of small waste, or one run of huge waste. Returns false if there
   * is neither waste nor a held page whose load is done. The search for held pages visits all runs,
   * and releases the lock from time to time.
   */
  take(maxPages: number): boolean {
    const { allocator } = this;
    this.count = this.pages = this.huge = 0;
    // A search that starts in the middle needs a second round to see all runs.
    let roundsLeft = this.heldFrom > 0 ? 2 : 1;
    do {
      allocator.lock();
      try {
        if (allocator.words[Word.HeldPages] === 0) roundsLeft = 0;
        else if (!this.wasteHeld()) roundsLeft--;
        this.takeSmall(maxPages);
        if (this.pages === 0) this.takeHuge();
        expectCounts(allocator.words);
      } finally {
        allocator.unlock();
      }
    } while (this.pages === 0 && roundsLeft > 0);
    return this.pages > 0;
  }

  private takeSmall(maxPages: number): void {
    const { set, backing } = this.allocator;
    // The first committed page that the last look found.
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
        // The look did not reach what follows.
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

  /** Widens the range to decommit to whole huge pages if all their other pages are sub-released. */
  private extendOverSubReleased(): void {
    const start = this.hugeDecommitStart;
    const end = this.hugeDecommitEnd;
    const first = start - (start % PAGES_PER_HUGE_PAGE);
    const last = Math.ceil(end / PAGES_PER_HUGE_PAGE) * PAGES_PER_HUGE_PAGE;
    // A release from the middle of one huge page completes it only if both sides are sub-released.
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

  /**
   * Makes the decommitted pieces free, or sub-released if other pages of their huge page are not.
   */
  finish(): void {
    const { allocator } = this;
    if (this.count === 0) return;
    allocator.lock();
    try {
      for (let i = 0; i < this.count; i++)
        expectReleasing(allocator.set, allocator.slot, this.starts[i]!, this.ends[i]!);
      if (this.huge !== 0) this.finishHuge();
      else for (let i = 0; i < this.count; i++) this.free(this.starts[i]!, this.ends[i]!);
      allocator.endReleasing();
      expectCounts(allocator.words);
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
    const hugePage = start - (start % PAGES_PER_HUGE_PAGE);
    const single = end <= hugePage + PAGES_PER_HUGE_PAGE;
    set.assign(start, end, SUB_RELEASED | HUGE, 0, single ? COUNTED : UNCOUNTED);
    reach("release: sub-released");
    words[Word.WastePages]! -= end - start;
    if (freeStart < freeEnd) set.assign(freeStart, freeEnd, FREE | HUGE);
    else if (single) this.wasteIfComplete(hugePage);
    backing.uncommitted(this.hugeDecommitStart, this.hugeDecommitEnd);
  }

  /**
   * Makes a huge page waste if all its pages are sub-released. That happens when several threads
   * release parts of it at once: each sees the others' parts as releasing, so none of them
   * decommits the page as a whole. As waste it is decommitted once more, because the kernel may
   * have rebuilt the huge page meanwhile.
   */
  private wasteIfComplete(hugePage: number): void {
    const { set, words } = this.allocator;
    const hugePageEnd = hugePage + PAGES_PER_HUGE_PAGE;
    if (!this.isSubReleased(hugePage, hugePageEnd)) return;
    set.assign(hugePage, hugePageEnd, WASTE | HUGE);
    words[Word.WastePages]! += PAGES_PER_HUGE_PAGE;
  }

  private free(start: number, end: number): void {
    const { set, words, backing } = this.allocator;
    set.replace(start, end, FREE, 0, 0);
    words[Word.WastePages]! -= end - start;
    backing.uncommitted(start, end);
  }

  /**
   * Among the next runs, makes held pages waste if their loads are done. Returns false after the
   * last run.
   */
  private wasteHeld(): boolean {
    const { set, words, backing } = this.allocator;
    let run = this.heldFrom < set.size ? set.startOf(this.heldFrom) : 0;
    for (let runs = 0; runs < RUNS_MAX && run < set.size; runs++) {
      const next = set.endOf(run);
      const tag = set.tagAt(run);
      if (stateOf(tag) === HELD && backing.hasNoReads(run, next)) {
        set.replace(run, next, WASTE | (tag & HUGE), 0, 0);
        words[Word.HeldPages]! -= next - run;
      }
      run = next;
    }
    this.heldFrom = run < set.size ? run : 0;
    return this.heldFrom > 0;
  }
}
