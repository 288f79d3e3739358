/**
 * Runs of pages inside a store's windows. A run of up to 8 MiB is cut from a segment; a longer one
 * has a window of its own.
 *
 * Segments double the store's size, up to 64 MiB each; where memory is short a smaller one is made.
 * A bitmap per segment says which pages are free. The first run that fits is taken, so that high
 * pages become free together. `LongestRun` is an upper bound: a search skips a full segment without
 * reading its bitmap. Free pages stay committed until they are a quarter of the used ones; then all
 * of them are given back to the kernel, and a segment with no used page to the MemoryFile.
 *
 * A search reads one bitmap (2 KiB) for each segment that may have enough free pages.
 */
import { OutOfMemoryError } from "../errors/errors.ts";
import { CorruptStoreError } from "../errors/store.ts";
import { PAGE_SIZE } from "../pages/units.ts";
import type { Arena } from "./arena.ts";
import {
  bitmapWords,
  MAX_WINDOWS,
  PAGE_RECORD_WORDS,
  PAGES_PER_WINDOW,
  PageKind,
  PageWord,
  pageAddress,
  Root,
  recordPages,
  STORE_PAGE,
  WINDOW_PAGE_BITS,
  WINDOW_PAGE_MASK,
  WINDOW_WORDS,
  WindowKind,
  WindowWord,
  windowAt,
} from "./layout.ts";

const MAX_RUN_IN_SEGMENT = 2048;
const MIN_SEGMENT_PAGES = 256;
const MAX_SEGMENT_PAGES = 16_384;
/** For fewer free pages than this, a call to the kernel costs more than it saves. */
const MIN_PURGE_PAGES = 1024;
const MIN_PURGE_RUN = 4;

export class Pages {
  private readonly arena: Arena;

  constructor(arena: Arena) {
    this.arena = arena;
  }

  /**
   * Allocates a run of pages, whose contents are undefined. Returns the first page's address.
   * Within an operation.
   *
   * @throws {OutOfMemoryError} {SyscallError} {NotLoadedError} {CorruptStoreError}
   */
  allocate(count: number): number {
    const address =
      count > MAX_RUN_IN_SEGMENT ? this.allocateLarge(count) : this.allocateSmall(count);
    const { arena } = this;
    arena.setRoot(Root.UsedPages, arena.root[Root.UsedPages]! + count);
    return address;
  }

  private allocateSmall(count: number): number {
    const { arena } = this;
    const current = arena.root[Root.CurrentWindow]!;
    let page = this.findIn(current, count);
    if (page >= 0) return this.take(current, page, count);
    for (let window = 1; window < arena.root[Root.WindowCount]!; window++) {
      page = this.findIn(window, count);
      if (page < 0) continue;
      arena.setRoot(Root.CurrentWindow, window);
      return this.take(window, page, count);
    }
    const window = this.addSegment(count);
    arena.setRoot(Root.CurrentWindow, window);
    page = this.findIn(window, count);
    if (page < 0) throw new CorruptStoreError(`A new segment has no run of ${count} pages`);
    return this.take(window, page, count);
  }

  /** The first page of a free run in that window, or -1. */
  private findIn(window: number, count: number): number {
    const { arena } = this;
    const { root } = arena;
    if (arena.kinds[window] !== WindowKind.Segment) return -1;
    const at = windowAt(window);
    if (root[at + WindowWord.FreePages]! < count || root[at + WindowWord.LongestRun]! < count)
      return -1;
    const pages = root[at + WindowWord.Pages]!;
    const wordCount = bitmapWords(pages);
    const words = arena.words[window]!;
    if (arena.isMissing) arena.requireLoaded(window, 0, wordCount);
    const hint = root[at + WindowWord.Hint]!;
    let first = hint > 0 && hint < wordCount ? hint : 0;
    while (first < wordCount - 1 && words[first] === 0) first++;
    if (first !== hint) arena.setRoot(at + WindowWord.Hint, first);
    const page = findRun(words, first, wordCount, count);
    if (page >= 0 && page + count <= pages) return page;
    arena.setRoot(at + WindowWord.LongestRun, count - 1);
    return -1;
  }

  private take(window: number, page: number, count: number): number {
    const { arena } = this;
    this.setBits(window, page, count, false);
    const at = windowAt(window);
    const free = arena.root[at + WindowWord.FreePages]!;
    arena.setRoot(at + WindowWord.FreePages, free - count);
    // Which of a segment's free pages are dirty is not known: the count assumes that those are used
    // first.
    const dirty = arena.root[at + WindowWord.DirtyPages]!;
    const fewer = Math.min(dirty, count);
    if (fewer > 0) {
      arena.setRoot(at + WindowWord.DirtyPages, dirty - fewer);
      arena.setRoot(Root.DirtyPages, Math.max(0, arena.root[Root.DirtyPages]! - fewer));
    }
    const record = arena.recordsAt[window]! + PAGE_RECORD_WORDS * page;
    arena.set(window, record + PageWord.State, PageKind.Run);
    arena.set(window, record + PageWord.Use, count);
    const start = arena.starts[window]!;
    const limit = start + arena.bytes[window]!.length;
    const from = start + page * STORE_PAGE;
    arena.huge.prepare(start, from, from + count * STORE_PAGE, limit);
    return pageAddress(window, page);
  }

  private setBits(window: number, page: number, count: number, isFree: boolean): void {
    const { arena } = this;
    for (let at = page, end = page + count; at < end; ) {
      const bit = at & 31;
      const some = Math.min(32 - bit, end - at);
      const mask = (some === 32 ? -1 : (1 << some) - 1) << bit;
      const old = arena.get(window, at >>> 5);
      if ((isFree ? old & mask : ~old & mask) !== 0)
        throw new CorruptStoreError(`Page ${at} of window ${window} is not as its run says`);
      arena.set(window, at >>> 5, isFree ? old | mask : old & ~mask);
      at += some;
    }
  }

  private addSegment(count: number): number {
    const { arena } = this;
    const least = segmentFor(count);
    const wish = Math.max(least, Math.min(MAX_SEGMENT_PAGES, arena.root[Root.SegmentPages]!));
    for (let pages = roundUp(wish); ; pages = Math.max(least, roundUp(pages >>> 1))) {
      try {
        return this.createSegment(pages);
      } catch (error) {
        if (!(error instanceof OutOfMemoryError) || pages === least) throw error;
      }
    }
  }

  private createSegment(pages: number): number {
    const { arena } = this;
    const start = arena.takeRange(pages * STORE_PAGE);
    const window = this.addWindow(start, pages, WindowKind.Segment);
    const words = arena.words[window]!;
    const own = recordPages(pages);
    // Fresh memory reads as zero: every page counts as taken until its bit is set.
    for (let page = own; page < pages; page++) words[page >>> 5]! |= 1 << (page & 31);
    const at = windowAt(window);
    arena.setRoot(at + WindowWord.FreePages, pages - own);
    arena.setRoot(at + WindowWord.LongestRun, pages - own);
    arena.setRoot(Root.SegmentPages, arena.root[Root.SegmentPages]! + pages);
    return window;
  }

  private allocateLarge(count: number): number {
    const { arena } = this;
    const pages = Math.ceil((count * STORE_PAGE) / PAGE_SIZE) * (PAGE_SIZE / STORE_PAGE);
    if (pages > PAGES_PER_WINDOW)
      throw new RangeError(`Expected at most ${PAGES_PER_WINDOW} pages, got ${pages}`);
    const start = arena.takeRange(pages * STORE_PAGE);
    const window = this.addWindow(start, pages, WindowKind.Large);
    const end = start + pages * STORE_PAGE;
    arena.huge.prepare(start, start, end, end);
    return pageAddress(window, 0);
  }

  private addWindow(start: number, pages: number, kind: number): number {
    const { arena } = this;
    const { root } = arena;
    let window = root[Root.FreeWindow]!;
    const count = root[Root.WindowCount]!;
    if (window > 0 && window < count && root[windowAt(window) + WindowWord.Pages] === 0) {
      const next = root[windowAt(window) + WindowWord.Hint]!;
      arena.setRoot(Root.FreeWindow, next);
    } else {
      window = count;
      if (window >= MAX_WINDOWS)
        throw new RangeError(`A store has at most ${MAX_WINDOWS} windows of memory`);
      arena.setRoot(Root.WindowCount, window + 1);
    }
    const at = windowAt(window);
    if (arena.isMissing) arena.requireLoaded(0, at, WINDOW_WORDS);
    arena.setRoot(at + WindowWord.Start, start / PAGE_SIZE);
    arena.setRoot(at + WindowWord.Pages, pages);
    arena.setRoot(at + WindowWord.Kind, kind);
    for (let word = WindowWord.FreePages; word <= WindowWord.Hint; word++)
      arena.setRoot(at + word, 0);
    arena.setRoot(Root.WindowsVersion, (root[Root.WindowsVersion]! + 1) | 0);
    arena.readWindows();
    return window;
  }

  /**
   * Frees a run. Within an operation: the pages may be used again by a later one.
   *
   * @throws {CorruptStoreError} {NotLoadedError}
   */
  free(address: number, count: number): void {
    const { arena } = this;
    const window = address >>> WINDOW_PAGE_BITS;
    const page = address & WINDOW_PAGE_MASK;
    arena.setRoot(Root.UsedPages, Math.max(0, arena.root[Root.UsedPages]! - count));
    if (arena.kinds[window] === WindowKind.Large) {
      this.removeWindow(window);
      return;
    }
    const at = windowAt(window);
    const own = recordPages(arena.root[at + WindowWord.Pages]!);
    if (arena.kinds[window] !== WindowKind.Segment || page < own)
      throw new CorruptStoreError(`The store refers to page ${page} of window ${window}`);
    this.setBits(window, page, count, true);
    const record = arena.recordsAt[window]! + PAGE_RECORD_WORDS * page;
    arena.set(window, record + PageWord.State, PageKind.Free);
    const free = arena.root[at + WindowWord.FreePages]! + count;
    arena.setRoot(at + WindowWord.FreePages, free);
    if (arena.root[at + WindowWord.LongestRun] !== free)
      arena.setRoot(at + WindowWord.LongestRun, free);
    arena.setRoot(at + WindowWord.DirtyPages, arena.root[at + WindowWord.DirtyPages]! + count);
    arena.setRoot(Root.DirtyPages, arena.root[Root.DirtyPages]! + count);
    // Low pages are used first, so high ones become free in large runs.
    if (page >>> 5 < arena.root[at + WindowWord.Hint]!)
      arena.setRoot(at + WindowWord.Hint, page >>> 5);
    if (window < arena.root[Root.CurrentWindow]!) arena.setRoot(Root.CurrentWindow, window);
  }

  private removeWindow(window: number): void {
    const { arena } = this;
    const at = windowAt(window);
    arena.dropRange(window);
    arena.setRoot(at + WindowWord.Pages, 0);
    arena.setRoot(at + WindowWord.Hint, arena.root[Root.FreeWindow]!);
    arena.setRoot(Root.FreeWindow, window);
    arena.setRoot(Root.WindowsVersion, (arena.root[Root.WindowsVersion]! + 1) | 0);
  }

  /** The pages of the run at that address. @throws {CorruptStoreError} if there is none */
  lengthOf(address: number): number {
    const { arena } = this;
    const window = address >>> WINDOW_PAGE_BITS;
    const page = address & WINDOW_PAGE_MASK;
    if (arena.kinds[window] === WindowKind.Large && page === 0)
      return arena.root[windowAt(window) + WindowWord.Pages]!;
    const record = (arena.recordsAt[window] ?? -1) + PAGE_RECORD_WORDS * page;
    const isRun =
      arena.kinds[window] === WindowKind.Segment &&
      (arena.get(window, record + PageWord.State) & 15) === PageKind.Run;
    const count = isRun ? arena.get(window, record + PageWord.Use) : 0;
    if (count < 1 || page + count > arena.root[windowAt(window) + WindowWord.Pages]!)
      throw new CorruptStoreError(`No run of pages begins at page ${page} of window ${window}`);
    return count;
  }

  /** True if enough pages have become free for a `purge`. */
  get hasGarbage(): boolean {
    const { root } = this.arena;
    const dirty = root[Root.DirtyPages]!;
    return dirty >= MIN_PURGE_PAGES && dirty >= root[Root.UsedPages]! >>> 2;
  }

  /**
   * Gives free pages back to the kernel, and empty segments to the file. An operation of its own.
   */
  purge(): void {
    const { arena } = this;
    const { root } = arena;
    for (let window = 1; window < root[Root.WindowCount]!; window++) {
      const at = windowAt(window);
      if (arena.kinds[window] !== WindowKind.Segment || root[at + WindowWord.DirtyPages]! === 0)
        continue;
      const pages = root[at + WindowWord.Pages]!;
      arena.write("purge", () => {
        if (root[at + WindowWord.FreePages] === pages - recordPages(pages)) {
          arena.setRoot(Root.SegmentPages, Math.max(0, root[Root.SegmentPages]! - pages));
          arena.huge.forget(arena.starts[window]!, arena.starts[window]! + pages * STORE_PAGE);
          this.removeWindow(window);
        } else this.decommitFree(window, pages);
        arena.setRoot(at + WindowWord.DirtyPages, 0);
      });
    }
    root[Root.DirtyPages] = 0;
  }

  private decommitFree(window: number, pages: number): void {
    const { arena } = this;
    const words = arena.words[window]!;
    if (arena.isMissing) arena.requireLoaded(window, 0, bitmapWords(pages));
    const base = arena.starts[window]!;
    for (let page = 0; page < pages; ) {
      if (words[page >>> 5] === 0) page = (page | 31) + 1;
      else if ((words[page >>> 5]! & (1 << (page & 31))) === 0) page++;
      else {
        const first = page;
        while (page < pages && (words[page >>> 5]! & (1 << (page & 31))) !== 0) page++;
        const start = Math.ceil((base + first * STORE_PAGE) / PAGE_SIZE) * PAGE_SIZE;
        const end = Math.floor((base + page * STORE_PAGE) / PAGE_SIZE) * PAGE_SIZE;
        if (page - first < MIN_PURGE_RUN || end <= start) continue;
        arena.file.decommit({ start, end });
        arena.huge.forget(start, end);
      }
    }
  }
}

/** The pages of the smallest segment that can have a run of `count` pages. */
function segmentFor(count: number): number {
  let pages = MIN_SEGMENT_PAGES;
  while (pages - recordPages(pages) < count) pages *= 2;
  return pages;
}

/** Whole pages of the MemoryFile, and a power of two or MIN_SEGMENT_PAGES. */
function roundUp(pages: number): number {
  return Math.max(MIN_SEGMENT_PAGES, 1 << (32 - Math.clz32(pages - 1)));
}

/**
 * The first run of `count` set bits in words [first, end), as a bit's index; -1 if there is none.
 */
function findRun(words: Int32Array, first: number, end: number, count: number): number {
  let length = 0;
  for (let at = first; at < end; at++) {
    const word = words[at]!;
    if (word === 0) length = 0;
    else if (word === -1) {
      length += 32;
      if (length >= count) return 32 * (at + 1) - length;
    } else {
      for (let bit = 0; bit < 32; bit++) {
        length = (word & (1 << bit)) === 0 ? 0 : length + 1;
        if (length === count) return 32 * at + bit + 1 - count;
      }
    }
  }
  return -1;
}
