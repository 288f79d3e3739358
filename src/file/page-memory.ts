/**
 * PageMemory: the methods of a MemoryFile that concern its pages: allocation, references, views,
 * eviction and accounting. The rest of the public surface is in memory-file.ts.
 */
import { fileStatus } from "../../ffi/index.ts";
import { scanCommitted } from "../accounting/scan.ts";
import { type Usage, usageOf } from "../accounting/usage.ts";
import { dumpRuns } from "../allocator/dump.ts";
import { Word } from "../control/control.ts";
import { allocatePages } from "../core/allocate.ts";
import { FileCore } from "../core/core.ts";
import { type AllocateOptions, checkGroups, type Nullable } from "../core/options.ts";
import { signalOf, unlessAborted, type WaitOptions } from "../core/wait.ts";
import type { EvictableMemoryUser, EvictionTrigger } from "../eviction/evictions.ts";
import type { EvictableRange } from "../eviction/range-list.ts";
import type { ViewConstructor } from "../memory/views.ts";
import { FileRange, type RangeLike } from "../pages/range.ts";
import { PAGE_SIZE } from "../pages/units.ts";

const NO_OPTIONS = Object.freeze({});

/** For MemoryFile.refresh: replaces the core of a memory. */
export let replaceCore: (memory: PageMemory, core: FileCore) => void;

export abstract class PageMemory {
  #core: FileCore;

  static {
    replaceCore = (memory, core) => {
      memory.#core = core;
    };
  }

  protected constructor(core: FileCore) {
    if (!(core instanceof FileCore))
      throw new TypeError(
        "Cannot construct a MemoryFile: use MemoryFile.create(), loadFrom() or attach()",
      );
    this.#core = core;
  }

  /**
   * Allocates zeroed pages, one reference each.
   *
   * @param lengthBytes a positive multiple of PAGE_SIZE (of HUGE_PAGE_SIZE with `huge`)
   * @throws {RangeError} {TypeError} for a bad argument, with nothing changed
   * @throws {OutOfMemoryError} code "ENOMEM", if limitBytes or the address space is exhausted
   * @throws {SyscallError} if the kernel has no memory to commit
   */
  allocate(lengthBytes: number, options: Nullable<AllocateOptions> | null = NO_OPTIONS): FileRange {
    return allocatePages(this.#core, lengthBytes, options ?? NO_OPTIONS);
  }

  /**
   * Adds a reference to each page of a range. Every page must have one already.
   * @throws {RangeError} with nothing changed
   */
  incRef(range: RangeLike): void {
    const core = this.#core;
    core.requireRange(range, "incRef()");
    core.allocator.incRef(core.startPage, core.endPage);
  }

  /**
   * Drops a reference of each page of a range. Every page must have one. Pages without references
   * become waste, and free in a later turn of the event loop.
   * @throws {RangeError} with nothing changed
   */
  decRef(range: RangeLike): void {
    const core = this.#core;
    core.requireRange(range, "decRef()");
    core.dropPages(core.startPage, core.endPage);
  }

  /** True if every page has exactly one reference. @throws {RangeError} if a page has none */
  hasUniqueRef(range: RangeLike): boolean {
    const core = this.#core;
    core.requireRange(range, "hasUniqueRef()");
    return core.allocator.hasUniqueRef(core.startPage, core.endPage);
  }

  /**
   * The first maximal sub-range whose pages have several references, or null.
   * @throws {RangeError} if a page has none
   */
  firstSharedRange(range: RangeLike): FileRange | null {
    const core = this.#core;
    core.requireRange(range, "firstSharedRange()");
    const shared = core.allocator.firstShared(core.startPage, core.endPage);
    return shared === null ? null : new FileRange(shared.start * PAGE_SIZE, shared.end * PAGE_SIZE);
  }

  /**
   * Returns the pages' memory to the kernel: they read as zero, and stay referenced.
   * @throws {RangeError} if a page has no reference
   */
  decommit(range: RangeLike): void {
    const core = this.#core;
    core.requireRange(range, "decommit()");
    const { startPage: start, endPage: end } = core;
    core.allocator.requireReferenced(start, end);
    // Pages that wait to be loaded are skipped. A read under way must end first.
    core.loader?.dropSync(start, end);
    core.mapping.decommit(start * PAGE_SIZE, end * PAGE_SIZE);
    core.noteUncommitted(start, end);
  }

  /**
   * A view of a range of up to 4 GiB, also across chunks. It is the same memory while the pages are
   * referenced, and has length 0 after `destroy()`. Posting it to a Worker copies the range: use
   * `share()` instead.
   *
   * @throws {RangeError} if a page has no reference
   * @throws {NotLoadedError} if a page is not loaded yet
   */
  view(range: RangeLike, type?: null): Uint8Array<ArrayBuffer>;
  view<T>(range: RangeLike, type: ViewConstructor<T>): T;
  view<T>(range: RangeLike, given?: ViewConstructor<T> | null): T {
    const type = given ?? (Uint8Array as never);
    const core = this.#core;
    core.requireRange(range, "view()");
    const { startPage, endPage, discards, views } = core;
    const view = views.find(startPage, endPage, type);
    if (view !== undefined && views.isFresh(view, discards)) return view;
    core.loader?.noteUse(startPage, endPage);
    core.requireReadable(startPage, endPage);
    if (view === undefined) return views.get(startPage, endPage, type, discards);
    views.renew(view, discards);
    return view;
  }

  /** The range's views, one for each chunk, for ranges of any length. @throws as `view` */
  views(range: RangeLike): Uint8Array<ArrayBuffer>[] {
    const core = this.#core;
    core.requireRange(range, "views()");
    return core.viewsOf(core.startPage, core.endPage);
  }

  /**
   * Resolves when no page is waste or being released, or the file is destroyed. Waste is released
   * in the background without this call, too. @throws the signal's reason
   */
  async released(options?: WaitOptions | null): Promise<void> {
    this.#core.requireLive("released()");
    await this.#core.releaser.released(signalOf(options));
  }

  /**
   * Allows the file to ask this thread's `user` to evict `range` (offsets of the user's own); see
   * `delayedEviction`. Marking a range again has no effect.
   * @throws {TypeError} {RangeError}
   */
  markEvictable(user: EvictableMemoryUser, range: EvictableRange): void {
    this.#core.requireLive("markEvictable()");
    this.#core.evictions.markEvictable(user, range);
  }

  /**
   * Revokes `markEvictable` for the parts of the range that were not evicted.
   * @throws {TypeError} {RangeError}
   */
  markUnevictable(user: EvictableMemoryUser, range: EvictableRange): void {
    this.#core.requireLive("markUnevictable()");
    this.#core.evictions.markUnevictable(user, range);
  }

  /** Revokes `markEvictable` for all ranges of the user. @throws {TypeError} */
  markAllUnevictable(user: EvictableMemoryUser): void {
    this.#core.requireLive("markAllUnevictable()");
    this.#core.evictions.markAllUnevictable(user);
  }

  /** Starts to evict all evictable memory of all threads, in later turns of their event loops. */
  startEvictions(): void {
    this.#core.requireLive("startEvictions()");
    this.#core.evictions.startEverywhere();
  }

  /**
   * Resolves when no thread evicts, or the file is destroyed.
   * @throws {EvictionError} if users of this thread threw and no earlier wait has reported it
   * @throws the signal's reason
   */
  async waitForEvictions(options?: WaitOptions | null): Promise<void> {
    this.#core.requireLive("waitForEvictions()");
    await unlessAborted(this.#core.evictions.waitForAll(), signalOf(options));
  }

  /** True if evictions are delayed for so long that caching in evictable memory is worth it. */
  shouldCacheEvictable(): boolean {
    this.#core.requireLive("shouldCacheEvictable()");
    return this.#core.evictions.shouldCache();
  }

  /** The trigger of evictions. If the host does not report pressure, it has the reason. */
  get evictionTrigger(): EvictionTrigger {
    this.#core.requireLive("evictionTrigger");
    return this.#core.evictions.trigger;
  }

  /**
   * Memory and swap that the kernel spends on the file: exact, from fstat(2). It includes neither
   * pages that are mapped from page files nor copies of those that were written: `usage()` has
   * both.
   */
  get totalUsageBytes(): number {
    this.#core.requireLive("totalUsageBytes");
    return fileStatus(this.#core.mapping.fd).allocatedBytes;
  }

  /**
   * Finds memory that was committed since the last call, for `usage()`: of the given groups, or of
   * all. A full scan is not repeated until eight times its duration have passed. Returns whether it
   * scanned; it does not if another thread is scanning.
   *
   * @throws {TypeError} {RangeError} unless groups are integers from 0 to 2^32 - 1
   * @throws {SyscallError}
   */
  updateUsage(groups?: Iterable<number> | null): boolean {
    this.#core.requireLive("updateUsage()");
    const wanted = checkGroups(groups ?? undefined);
    // The groups' iterator is the program's code, and may have destroyed the file.
    this.#core.requireLive("updateUsage()");
    return scanCommitted(this.#core, wanted);
  }

  /**
   * Committed memory by kind and group at the last `updateUsage`, less the memory released since.
   */
  usage(): Usage {
    this.#core.requireLive("usage()");
    return usageOf(this.#core);
  }

  /** The file's size: a multiple of CHUNK_SIZE. It only grows. */
  get totalSizeBytes(): number {
    this.#core.requireLive("totalSizeBytes");
    return this.#core.sizeBytes;
  }

  /** Bytes of pages with references. */
  get allocatedBytes(): number {
    this.#core.requireLive("allocatedBytes");
    return this.#core.words[Word.UsedPages]! * PAGE_SIZE;
  }

  /** The state of every page, one line for each run of equal pages. */
  dump(): string {
    this.#core.requireLive("dump()");
    return dumpRuns(this.#core.allocator);
  }
}
