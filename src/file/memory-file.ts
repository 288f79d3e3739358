/**
 * MemoryFile: page-granular, reference-counted memory outside the JavaScript heap, that can be checkpointed and restored in
 * the background. A port of gVisor's pkg/sentry/pgalloc; the page states are described in allocator/states.ts.
 *
 * This file is the public surface: it checks what it is given, and hands it on. Who does what:
 *
 *   file-core.ts  what a file is made of, its life    mapping/    the memory, and views of it
 *   allocator/    which pages are whose               load/       what is loaded, and waiting for it
 *   releaser.ts   waste back to the kernel            shared/     words and lock shared by all threads
 *   accounting/   what is committed, for whom         eviction/   memory that users can do without
 *   checkpoint/   save, and what a restore reads      restore.ts  from a checkpoint's description to a loading file
 */
import { checkInteger, fileStatus } from "../../ffi/index.ts";
import { scanCommitted } from "../accounting/scan.ts";
import { type Usage, usageOf } from "../accounting/usage.ts";
import { Placement } from "../allocator/allocator.ts";
import { dumpRuns } from "../allocator/dump.ts";
import { HUGE, KIND_SHIFT, USED } from "../allocator/states.ts";
import { closeContents, openCheckpoint } from "../checkpoint/directory.ts";
import { MAIN_NAME } from "../checkpoint/format.ts";
import { type SaveOptions, type SaveReport, saveFiles } from "../save/save.ts";
import { NotLoadedError, SeveralFilesError } from "../errors/errors.ts";
import type { EvictableMemoryUser, EvictionTrigger } from "../eviction/evictions.ts";
import type { EvictableRange } from "../eviction/range-list.ts";
import { whileStill } from "../control/stops.ts";
import { attachCore, FileCore } from "../core/core.ts";
import { FileRange, type RangeLike } from "../pages/range.ts";
import { type LoadStats, NOTHING_LOADED } from "../load/load-stats.ts";
import type { ViewConstructor } from "../memory/views.ts";
import {
  type AllocateOptions,
  type AllocationMode,
  type AttachOptions,
  checkAllocation,
  checkGroups,
  checkLength,
  checkQueue,
  checkWatchers,
  copyUserData,
  isTopDown,
  type LoadOptions,
  type MemoryFileHandle,
  type MemoryFileOptions,
} from "../core/options.ts";
import { makeReadOnly } from "./read-only.ts";
import { createParts } from "../core/parts.ts";
import { type FileMetrics, metricsOf } from "../metrics/metrics.ts";
import { recordAwait, recordAwaitSync, recordLoad, recordSave } from "../metrics/record.ts";
import { placePages } from "../core/place.ts";
import { keepServed } from "../core/service.ts";
import { restoreCheckpoint } from "../restore/native.ts";
import { Word } from "../control/control.ts";
import { MemoryKind, PAGE_SIZE, PAGES_PER_CHUNK, pageOf } from "../pages/units.ts";

/**
 * For the library's other modules, not for programs: what is behind a file, and a file over what
 * they made.
 */
export let coreOf: (file: MemoryFile) => FileCore;
export let fileOver: (core: FileCore, userData: Uint8Array | null) => MemoryFile;

const NO_OPTIONS: AllocateOptions = Object.freeze({});

export class MemoryFile implements Disposable {
  /**
   * What the program stored beside its pages in the checkpoint that this file was restored from.
   */
  readonly userData: Uint8Array | null;
  readonly name: string;
  readonly #core: FileCore;

  static {
    coreOf = (file) => file.#core;
    fileOver = (core, userData) => new MemoryFile(core, userData);
  }

  private constructor(core: FileCore, userData: Uint8Array | null) {
    this.#core = core;
    this.userData = userData;
    this.name = core.name;
  }

  /**
   * Makes an empty file.
   *
   * @throws {RangeError} if limitBytes is no multiple of PAGE_SIZE between PAGE_SIZE and 1 TiB
   * @throws {SyscallError} if the file or its address space cannot be had
   */
  static create(options: MemoryFileOptions = {}): MemoryFile {
    return new MemoryFile(new FileCore(createParts(options)), null);
  }

  /**
   * Opens a file that another thread of this process shares. However often a thread attaches, and
   * if it made the file itself: all its MemoryFile objects are one participant, and `destroy` of
   * one ends them all.
   *
   * A consistent save stops all threads that attached: see `safepoint`. One that attaches with
   * `readOnly` never has to stop. It promises not to write to views, and methods that change the
   * file throw a ReadOnlyError.
   *
   * @throws {TypeError} for a handle that `share()` of a file of this process did not make
   * @throws {DestroyedError} if the file was destroyed meanwhile
   * @throws {TooManyThreadsError} if 192 threads use it
   */
  static attach(handle: MemoryFileHandle, options: AttachOptions = {}): MemoryFile {
    const isReadOnly = options.readOnly === true;
    const core = attachCore(handle, isReadOnly);
    keepServed(core, handle);
    const file = new MemoryFile(core, handle.userData);
    return isReadOnly ? makeReadOnly(file) : file;
  }

  /** A handle for other threads of this process: post it to a Worker and `attach` it there. */
  share(): MemoryFileHandle {
    this.#core.requireLive("share()");
    const loader = this.#core.loader;
    // From now on others may use the file, and this thread takes the lock.
    Atomics.store(this.#core.words, Word.Shared, 1);
    this.#core.joinStops();
    const load = loader?.state.handle ?? null;
    const handle: MemoryFileHandle = {
      kind: "pgalloc.MemoryFile",
      name: this.name,
      control: this.#core.control.buffer,
      load,
      userData: this.userData,
    };
    keepServed(this.#core, handle);
    return handle;
  }

  /**
   * Stops here while another thread saves the file at one instant: for turns that take long. Costs a
   * look at one word otherwise. A thread also stops between turns of its event loop and in
   * `awaitLoadSync`, and nowhere else: what it writes between two such points is saved as a whole.
   *
   * (I/O that is under way into a view is the program's: it goes on.)
   */
  safepoint(): void {
    this.#core.requireLive("safepoint()");
    this.#core.stops.safepoint();
  }

  /**
   * Runs `work`, which blocks this thread and uses nothing of the file, and returns what it returns.
   * This thread counts as stopped meanwhile, so that a save need not wait for it.
   */
  parked<T>(work: () => T): T {
    this.#core.requireLive("parked()");
    return this.#core.stops.parked(work);
  }

  /**
   * Allocates zeroed pages, one reference each.
   *
   * @param lengthBytes a positive multiple of PAGE_SIZE (of HUGE_PAGE_SIZE with `huge`)
   * @throws {RangeError} {TypeError} for a bad argument
   * @throws {OutOfMemoryError} code "ENOMEM", if limitBytes or the address space is exhausted
   * @throws {SyscallError} if the kernel has no memory to commit
   */
  allocate(lengthBytes: number, options: AllocateOptions = NO_OPTIONS): FileRange {
    // Each is read once, and before the rest: a getter may answer otherwise the next time, or
    // destroy the file.
    const {
      kind = MemoryKind.Anonymous,
      group = 0,
      mode = "uncommitted",
      huge: wantsHuge = false,
      direction,
      fill,
    } = options;
    this.#core.requireLive("allocate()");
    checkLength(lengthBytes, wantsHuge);
    checkAllocation(mode, kind, group);
    const huge = wantsHuge && this.#core.expectHugepages;
    const how =
      (isTopDown(direction) ? Placement.TopDown : 0) |
      (mode === "uncommitted" ? 0 : Placement.Recycle);
    const tag = USED | (huge ? HUGE : 0) | (kind << KIND_SHIFT);
    const start = placePages(this.#core, lengthBytes / PAGE_SIZE, tag, group, how) * PAGE_SIZE;
    const range = new FileRange(start, start + lengthBytes);
    if (mode !== "uncommitted") this.#commit(range, mode, huge);
    return fill === undefined ? range : this.#fill(range, fill);
  }

  #commit(range: FileRange, mode: AllocationMode, huge: boolean): void {
    const { allocator, mapping, words, advises } = this.#core;
    const { start, end } = range;
    const { recycled } = allocator;
    let seen = true;
    try {
      if (recycled || mode === "writePopulate" || (huge ? advises.huge : advises.small)) {
        // Committed through our mapping, since only that carries the advice about huge pages.
        seen = mapping.populate(start, end);
      } else if (mode === "commit") {
        // Allocated without being touched.
        seen = false;
        mapping.commit(start, end);
      }
      if (recycled) mapping.zero(start, end);
      if (seen) return;
      Atomics.store(words, Word.UnseenCommits, 1);
      this.#core.noteCommitted(pageOf(start), pageOf(end));
    } catch (error) {
      // A part of the pages may have been allocated.
      if (!seen) Atomics.store(words, Word.UnseenCommits, 1);
      this.decRef(range);
      throw error;
    }
  }

  #fill(range: FileRange, fill: (destination: Uint8Array) => number): FileRange {
    let filled = range.start;
    try {
      for (const view of this.views(range)) {
        let done = 0;
        while (done < view.byteLength) {
          const count = fill(view.subarray(done));
          this.#core.requireLive("allocate()");
          checkInteger("fill's result", count, 0, view.byteLength - done);
          if (count === 0) break;
          done += count;
        }
        filled += done;
        if (done < view.byteLength) break;
      }
    } catch (error) {
      if (!this.#core.isDetached) this.decRef(range);
      throw error;
    }
    const end = filled - (filled % PAGE_SIZE);
    if (end < range.end) this.decRef(new FileRange(end, range.end));
    return end === range.end ? range : new FileRange(range.start, end);
  }

  /**
   * Adds a reference to each page of a range whose pages all have one.
   * @throws {RangeError} with nothing changed
   */
  incRef(range: RangeLike): void {
    const core = this.#core;
    core.requireRange(range, "incRef()");
    core.allocator.incRef(core.startPage, core.endPage);
  }

  /**
   * Drops a reference of each page of a range whose pages all have one. Pages without references
   * become waste, and free in a later turn of the event loop.
   * @throws {RangeError} with nothing changed
   */
  decRef(range: RangeLike): void {
    const core = this.#core;
    core.requireRange(range, "decRef()");
    if (core.allocator.decRef(core.startPage, core.endPage)) core.releaser.schedule();
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
   * Gives the pages' memory back to the kernel: they read as zero, and stay referenced.
   * @throws {RangeError}
   */
  decommit(range: RangeLike): void {
    this.#core.requireRange(range, "decommit()");
    const { startPage: start, endPage: end } = this.#core;
    this.#core.allocator.requireReferenced(start, end);
    // What is still to be loaded need not be; what is being read must land before it is thrown
    // away.
    this.#core.loader?.dropSync(start, end);
    this.#core.mapping.decommit(start * PAGE_SIZE, end * PAGE_SIZE);
    this.#core.noteUncommitted(start, end);
  }

  /**
   * A view of a range, also across chunks, up to 4 GiB. It is the same memory as long as the pages
   * are referenced, and has length 0 after `destroy()`. Posting it to a Worker copies the range:
   * use `share()` instead.
   *
   * @throws {RangeError} if a page has no reference
   * @throws {NotLoadedError} if a page is not loaded yet
   */
  view(range: RangeLike): Uint8Array<ArrayBuffer>;
  view<T>(range: RangeLike, type: ViewConstructor<T>): T;
  view<T>(range: RangeLike, type: ViewConstructor<T> = Uint8Array as never): T {
    const core = this.#core;
    core.requireRange(range, "view()");
    const { startPage, endPage, discards, views } = core;
    const view = views.find(startPage, endPage, type);
    if (view !== undefined && views.isFresh(view, discards)) return view;
    this.#requireReadable(startPage, endPage);
    if (view === undefined) return views.get(startPage, endPage, type, discards);
    views.renew(view, discards);
    return view;
  }

  /** The range's views, one a chunk, for ranges of any length. @throws as `view` */
  views(range: RangeLike): Uint8Array<ArrayBuffer>[] {
    this.#core.requireRange(range, "views()");
    const { startPage, endPage: last, discards } = this.#core;
    this.#requireReadable(startPage, last);
    const views: Uint8Array<ArrayBuffer>[] = [];
    for (let start = startPage; start < last; ) {
      const end = Math.min(last, start - (start % PAGES_PER_CHUNK) + PAGES_PER_CHUNK);
      views.push(this.#core.views.get(start, end, Uint8Array<ArrayBuffer>, discards));
      start = end;
    }
    return views;
  }

  /**
   * Resolves when no page is waste or being released. Dropped references release in the background
   * anyway.
   */
  async released(): Promise<void> {
    this.#core.requireLive("released()");
    await this.#core.releaser.released();
  }

  /** Memory and swap that the kernel spends on the file: exact, from fstat(2). */
  get totalUsageBytes(): number {
    this.#core.requireLive("totalUsageBytes");
    return fileStatus(this.#core.mapping.fd).allocatedBytes;
  }

  /**
   * Looks for memory that was committed since the last look, for `usage()`; of the given groups
   * only, or of all. A look at all is not repeated before eight times what the last one took has
   * passed. True if it looked; false if all was known, or the last look is too recent, or another
   * thread is looking.
   *
   * @throws {TypeError} {RangeError} if groups are no integers from 0 to 2^32 - 1
   * @throws {SyscallError}
   */
  updateUsage(groups?: Iterable<number>): boolean {
    this.#core.requireLive("updateUsage()");
    const wanted = checkGroups(groups);
    // The groups' iterator is the program's own code, and may have destroyed the file.
    this.#core.requireLive("updateUsage()");
    return scanCommitted(this.#core, wanted);
  }

  /**
   * Committed memory of each kind and group, as of the last `updateUsage`; what was given back
   * since is deducted.
   */
  usage(): Usage {
    this.#core.requireLive("usage()");
    return usageOf(this.#core.allocator, this.#core.commitment);
  }

  /**
   * Allows the file to ask this thread's `user` to evict `range` (offsets of the user's own), from
   * now on; when, see `delayedEviction`. Marking again has no effect.
   * @throws {TypeError} {RangeError}
   */
  markEvictable(user: EvictableMemoryUser, range: EvictableRange): void {
    this.#core.requireLive("markEvictable()");
    this.#core.evictions.markEvictable(user, range);
  }

  /**
   * Takes that back for what of the range has not been evicted.
   * @throws {TypeError} {RangeError}
   */
  markUnevictable(user: EvictableMemoryUser, range: EvictableRange): void {
    this.#core.requireLive("markUnevictable()");
    this.#core.evictions.markUnevictable(user, range);
  }

  /** Takes it back for all ranges of the user. @throws {TypeError} */
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
   * @throws {EvictionError} if users of this thread threw, unless an earlier wait was told
   */
  async waitForEvictions(): Promise<void> {
    this.#core.requireLive("waitForEvictions()");
    await this.#core.evictions.waitForAll();
  }

  /** True if evictions are put off for so long that caching in evictable memory is worth it. */
  shouldCacheEvictable(): boolean {
    this.#core.requireLive("shouldCacheEvictable()");
    return this.#core.evictions.shouldCache();
  }

  /** What makes evictions start; where the host tells of no pressure, why. */
  get evictionTrigger(): EvictionTrigger {
    this.#core.requireLive("evictionTrigger");
    return this.#core.evictions.trigger;
  }

  /** The file's size: a multiple of CHUNK_SIZE, that only grows. */
  get totalSizeBytes(): number {
    this.#core.requireLive("totalSizeBytes");
    return this.#core.sizeBytes;
  }

  /** Bytes with references. */
  get allocatedBytes(): number {
    this.#core.requireLive("allocatedBytes");
    return this.#core.words[Word.UsedPages]! * PAGE_SIZE;
  }

  /** The state of every page, a line for each run of equal pages. */
  toString(): string {
    this.#core.requireLive("toString()");
    return dumpRuns(this.#core.allocator);
  }

  /**
   * Writes a checkpoint into `directory` (created if need be): all referenced pages that hold
   * something, their references, kinds and groups, and `userData`. At every instant the directory
   * holds the previous complete checkpoint or the new one.
   *
   * The program may go on meanwhile; of what it writes during the save, any page may be in the
   * checkpoint or not.
   *
   * @throws {CheckpointBusyError} if a save into the directory is under way
   * @throws {SyscallError} ENOSPC and the like: the previous checkpoint is intact, temporary files
   * are gone
   */
  async saveTo(directory: string, options: SaveOptions = {}): Promise<SaveReport> {
    this.#core.requireLive("saveTo()");
    checkWatchers(options);
    const file = {
      name: MAIN_NAME,
      core: this.#core,
      userData: copyUserData("userData", options.userData),
    };
    const save = saveFiles([file], directory, { ...options, userData: undefined });
    return await recordSave([this.#core], directory, save);
  }

  /**
   * Restores a file from a checkpoint directory. With `background` it returns as soon as the
   * metadata stands; see `awaitLoad`. The checkpoint's files may be deleted or replaced meanwhile:
   * what is open stays readable.
   *
   * @throws {SeveralFilesError} if the checkpoint has several files: see `loadAll`
   * @throws {CorruptCheckpointError} if the directory holds no checkpoint, or one whose bytes are
   * wrong
   * @throws {OutOfMemoryError} if it asks for more than limitBytes
   * @throws {SyscallError} if it cannot be read
   */
  static async loadFrom(directory: string, options: LoadOptions = {}): Promise<MemoryFile> {
    checkWatchers(options);
    checkQueue(options.queue);
    const checkpoint = openCheckpoint(directory);
    const { files } = checkpoint.manifest;
    const [only] = files;
    if (only === undefined || files.length > 1) {
      closeContents(checkpoint.contents);
      const names = files.map(({ name }) => name);
      throw new SeveralFilesError(directory, names);
    }
    const { onProgress } = options;
    const restored = restoreCheckpoint(checkpoint, () => options, {
      ...options,
      report: onProgress && (([loader]) => onProgress(loader!.stats())),
    });
    void recordLoad(restored.cores[0]!);
    const file = new MemoryFile(restored.cores[0]!, only.userData);
    await restored.finish();
    return file;
  }

  /** True while a restore goes on in the background. */
  get isLoading(): boolean {
    this.#core.requireLive("isLoading");
    return this.#core.loader?.isLoading ?? false;
  }

  /** True if every page of the range is in place. @throws {RangeError} for a bad range */
  isLoaded(range: RangeLike): boolean {
    this.#core.requireRange(range, "isLoaded()");
    if (!this.#core.mayMissPages) return true;
    return this.#core.loader!.isLoaded(this.#core.startPage, this.#core.endPage);
  }

  /** What the restore has done so far; all zeros for a file that was not restored. */
  loadStats(): LoadStats {
    this.#core.requireLive("loadStats()");
    return this.#core.loader?.stats() ?? NOTHING_LOADED;
  }

  /** Counters of all threads since the file was made: memory, load, waits, saves, errors. */
  metrics(): FileMetrics {
    this.#core.requireLive("metrics()");
    return metricsOf(this.#core);
  }

  /**
   * Resolves when the range is loaded, ahead of everything that nobody waits for; without a range,
   * when all is.
   *
   * @throws {CorruptCheckpointError} {SyscallError} if a page of it cannot be loaded
   * @throws the signal's reason; the load itself goes on
   */
  async awaitLoad(
    range?: RangeLike,
    options: { readonly signal?: AbortSignal | undefined } = {},
  ): Promise<void> {
    const pages = this.#pagesToAwait(range, "awaitLoad()");
    if (pages === null) {
      options.signal?.throwIfAborted();
      return;
    }
    const { start, end } = pages;
    const loader = this.#core.loader!;
    // Before the wait begins, since it may read at once.
    const isThere = range !== undefined && loader.isLoaded(start, end);
    const wait = () => loader.awaitLoad(start, end, range !== undefined, options.signal);
    if (isThere) await wait();
    else await recordAwait(this.#core, range === undefined ? "all" : "range", pages, wait);
  }

  /**
   * Tries again what could not be loaded of the range (without a range: of the file), and makes a
   * load go on that its signal had aborted. Resolves and rejects as `awaitLoad` does: a failure is
   * told to every waiter until then.
   */
  async retryLoad(
    range?: RangeLike,
    options: { readonly signal?: AbortSignal | undefined } = {},
  ): Promise<void> {
    const pages = this.#pagesToAwait(range, "retryLoad()");
    options.signal?.throwIfAborted();
    if (pages === null) return;
    await this.#core.loader!.retry(pages.start, pages.end);
    await this.awaitLoad(range, options);
  }

  /** As `awaitLoad`, blocking this thread: for Workers and for start-up code. */
  awaitLoadSync(range?: RangeLike): void {
    const pages = this.#pagesToAwait(range, "awaitLoadSync()");
    if (pages === null) return;
    const { start, end } = pages;
    const loader = this.#core.loader!;
    const wait = () => whileStill(() => loader.awaitLoadSync(start, end));
    if (loader.isLoaded(start, end)) wait();
    else recordAwaitSync(this.#core, pages, wait);
  }

  #pagesToAwait(
    range: RangeLike | undefined,
    method: string,
  ): { start: number; end: number } | null {
    if (range === undefined) this.#core.requireLive(method);
    else this.#core.requireRange(range, method);
    if (!this.#core.mayMissPages) return null;
    if (range === undefined) return { start: 0, end: this.#core.words[Word.SizePages]! };
    return { start: this.#core.startPage, end: this.#core.endPage };
  }

  /**
   * Ends the file for all its threads. Every view of this thread has length 0 when this returns;
   * the views of another thread have at its next call or turn. A view that I/O in flight uses (a
   * read or write, zlib) keeps its length until that I/O ends, and has length 0 within 100 ms of
   * it. Memory is unmapped when no load, save or such view uses it. Calling it again does nothing.
   */
  destroy(): void {
    this.#core.destroy();
  }

  [Symbol.dispose](): void {
    this.destroy();
  }

  #requireReadable(start: number, end: number): void {
    this.#core.allocator.requireReferenced(start, end);
    if (!this.#core.mayMissPages || this.#core.loader!.isLoaded(start, end)) return;
    const cause = this.#core.loader!.failureOf(start, end);
    throw new NotLoadedError(
      start * PAGE_SIZE,
      end * PAGE_SIZE,
      cause === undefined ? undefined : { cause },
    );
  }
}
