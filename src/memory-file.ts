/**
 * MemoryFile: page-granular, reference-counted memory outside the JavaScript heap, that can be checkpointed and restored in
 * the background. A port of gVisor's pkg/sentry/pgalloc; the page states are described in allocator/states.ts.
 *
 * This file is the public surface: it checks what it is given, and hands it on. Who does what:
 *
 *   allocator/   which pages are whose            mapping/     the memory, and views of it
 *   releaser.ts  waste back to the kernel         load/        what is loaded, and waiting for it
 *   checkpoint/  save, and what a restore reads   shared/      words and lock shared by all threads
 */
import { checkInteger, closeFile, fileStatus } from "../ffi/index.ts";
import { Allocator } from "./allocator/allocator.ts";
import { dumpRuns } from "./allocator/dump.ts";
import { openCheckpoint } from "./checkpoint/directory.ts";
import type { CheckpointImage } from "./checkpoint/format.ts";
import { restoreRuns } from "./checkpoint/restore.ts";
import { type SaveOptions, type SaveReport, saveCheckpoint } from "./checkpoint/save.ts";
import { DestroyedError, NotLoadedError, OutOfMemoryError } from "./errors.ts";
import { checkRange, FileRange, type RangeLike } from "./file-range.ts";
import { Loader, type LoadStats, NOTHING_LOADED } from "./load/loader.ts";
import { LoadState, LoadWord } from "./load/load-state.ts";
import type { Mapping } from "./mapping/mapping.ts";
import { type ViewConstructor, Views } from "./mapping/views.ts";
import {
  type AllocateOptions,
  type AllocationMode,
  checkAllocation,
  checkQueue,
  isTopDown,
  type LoadOptions,
  type MemoryFileHandle,
  type MemoryFileOptions,
} from "./options.ts";
import { attachParts, createParts, describe, Flag, type Parts } from "./parts.ts";
import { Releaser } from "./releaser.ts";
import { type Control, Field, Word } from "./shared/control.ts";
import { Participants } from "./shared/participants.ts";
import { CHUNK_SIZE, MemoryKind, PAGE_SIZE, PAGES_PER_CHUNK } from "./units.ts";

const PROGRESS_INTERVAL_MS = 50;

export class MemoryFile implements Disposable {
  /** What the program stored beside its pages in the checkpoint that this file was restored from. */
  readonly userData: Uint8Array | null;
  readonly name: string;
  readonly #control: Control;
  readonly #words: Int32Array<SharedArrayBuffer>;
  readonly #mapping: Mapping;
  readonly #tables: Parts["tables"];
  readonly #allocator: Allocator;
  readonly #releaser: Releaser;
  readonly #views: Views;
  readonly #participants: Participants;
  readonly #expectHugepages: boolean;
  readonly #advises: { readonly huge: boolean; readonly small: boolean };
  #loader: Loader | undefined;
  /** Saves under way: memory stays mapped until they have ended. */
  readonly #saves = new Set<Promise<unknown>>();
  #isDetached = false;

  private constructor(parts: Parts, userData: Uint8Array | null) {
    const { control, mapping } = parts;
    this.userData = userData;
    this.name = parts.name;
    this.#control = control;
    this.#words = control.words;
    this.#mapping = mapping;
    this.#tables = parts.tables;
    const flags = control.fields[Field.Flags]!;
    this.#expectHugepages = (flags & Flag.ExpectHugepages) !== 0;
    this.#advises = { huge: (flags & Flag.AdviseHugepage) !== 0, small: (flags & Flag.AdviseNoHugepage) !== 0 };
    this.#allocator = new Allocator(control, parts.tables, {
      grow: (chunks, huge) => mapping.grow(this.totalSizeBytes, chunks, huge),
      cancelLoad: (start, end) => this.#loader?.state.cancel(control, start, end) ?? false,
      isSettled: (start, end) => this.#loader?.state.isSettled(start, end) ?? true,
    });
    this.#releaser = new Releaser(control.words, this.#allocator, mapping, () => !this.#isDetached);
    this.#views = new Views(mapping.base);
    this.#participants = new Participants(control, () => this.#leave());
  }

  /**
   * Makes an empty file.
   *
   * @throws {RangeError} if limitBytes is no multiple of PAGE_SIZE between PAGE_SIZE and 1 TiB
   * @throws {SyscallError} if the file or its address space cannot be had
   */
  static create(options: MemoryFileOptions = {}): MemoryFile {
    return new MemoryFile(createParts(options), null);
  }

  /** Opens a file that another thread of this process shares. @throws {TypeError} {DestroyedError} */
  static attach(handle: MemoryFileHandle): MemoryFile {
    const parts = attachParts(handle);
    const file = new MemoryFile(parts, null);
    if (handle.load !== null) {
      const { fd, path } = handle.load;
      file.#loader = new Loader({
        control: parts.control,
        state: new LoadState(handle.load.state),
        base: parts.mapping.base,
        fd,
        path,
      });
    }
    return file;
  }

  /** A handle for other threads of this process: post it to a Worker and `attach` it there. */
  share(): MemoryFileHandle {
    this.#requireLive("share()");
    const loader = this.#loader;
    const load = loader === undefined ? null : { state: loader.state.buffer, fd: loader.fd, path: loader.path };
    return { kind: "pgalloc.MemoryFile", name: this.name, control: this.#control.buffer, load };
  }

  /**
   * Allocates zeroed pages, one reference each.
   *
   * @param lengthBytes a positive multiple of PAGE_SIZE (of HUGE_PAGE_SIZE with `huge`)
   * @throws {RangeError} {TypeError} for a bad argument
   * @throws {OutOfMemoryError} code "ENOMEM", if limitBytes or the address space is exhausted
   * @throws {SyscallError} if the kernel has no memory to commit
   */
  allocate(lengthBytes: number, options: AllocateOptions = {}): FileRange {
    this.#requireLive("allocate()");
    checkAllocation(lengthBytes, options);
    const mode = options.mode ?? "uncommitted";
    const huge = (options.huge ?? false) && this.#expectHugepages;
    const start = this.#place({
      pages: lengthBytes / PAGE_SIZE,
      huge,
      topDown: isTopDown(options.direction),
      willCommit: mode !== "uncommitted",
      kind: options.kind ?? MemoryKind.Anonymous,
      group: options.group ?? 0,
    });
    const range = new FileRange(start * PAGE_SIZE, start * PAGE_SIZE + lengthBytes);
    if (mode !== "uncommitted") this.#commit(range, mode, huge);
    return options.fill === undefined ? range : this.#fill(range, options.fill);
  }

  /** Places an allocation. Before the file may not grow any more, or by 1 GiB for nothing, waste is released on the spot. */
  #place(request: Parameters<Allocator["allocate"]>[0]): number {
    if (this.#words[Word.WastePages]! > PAGES_PER_CHUNK) this.#releaser.releaseAll();
    try {
      return this.#allocator.allocate(request);
    } catch (error) {
      if (!(error instanceof OutOfMemoryError) || this.#words[Word.WastePages] === 0) throw error;
      this.#releaser.releaseAll();
      return this.#allocator.allocate(request);
    }
  }

  #commit(range: FileRange, mode: AllocationMode, huge: boolean): void {
    try {
      if (this.#allocator.recycled) {
        this.#mapping.populate(range.start, range.end);
        this.#mapping.zero(range.start, range.end);
      } else if (mode === "writePopulate" || (huge ? this.#advises.huge : this.#advises.small)) {
        // Committed through our mapping, since only that carries the advice about huge pages.
        this.#mapping.populate(range.start, range.end);
      } else if (mode === "commit") {
        this.#mapping.commit(range.start, range.end);
      }
    } catch (error) {
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
          this.#requireLive("allocate()");
          checkInteger("fill's result", count, 0, view.byteLength - done);
          if (count === 0) break;
          done += count;
        }
        filled += done;
        if (done < view.byteLength) break;
      }
    } catch (error) {
      if (!this.#isDetached) this.decRef(range);
      throw error;
    }
    const end = filled - (filled % PAGE_SIZE);
    if (end < range.end) this.decRef(new FileRange(end, range.end));
    return end === range.end ? range : new FileRange(range.start, end);
  }

  /** Adds a reference to each page of a range whose pages all have one. @throws {RangeError} with nothing changed */
  incRef(range: RangeLike): void {
    this.#requireRange(range, "incRef()");
    this.#allocator.incRef(range.start / PAGE_SIZE, range.end / PAGE_SIZE);
  }

  /**
   * Drops a reference of each page of a range whose pages all have one. Pages without references become waste, and free
   * in a later turn of the event loop. @throws {RangeError} with nothing changed
   */
  decRef(range: RangeLike): void {
    this.#requireRange(range, "decRef()");
    if (this.#allocator.decRef(range.start / PAGE_SIZE, range.end / PAGE_SIZE)) this.#releaser.schedule();
  }

  /** True if every page has exactly one reference. @throws {RangeError} if a page has none */
  hasUniqueRef(range: RangeLike): boolean {
    this.#requireRange(range, "hasUniqueRef()");
    return this.#allocator.hasUniqueRef(range.start / PAGE_SIZE, range.end / PAGE_SIZE);
  }

  /** The first maximal sub-range whose pages have several references, or null. @throws {RangeError} if a page has none */
  firstSharedRange(range: RangeLike): FileRange | null {
    this.#requireRange(range, "firstSharedRange()");
    const shared = this.#allocator.firstShared(range.start / PAGE_SIZE, range.end / PAGE_SIZE);
    return shared === null ? null : new FileRange(shared.start * PAGE_SIZE, shared.end * PAGE_SIZE);
  }

  /** Gives the pages' memory back to the kernel: they read as zero, and stay referenced. @throws {RangeError} */
  decommit(range: RangeLike): void {
    this.#requireRange(range, "decommit()");
    const start = range.start / PAGE_SIZE;
    const end = range.end / PAGE_SIZE;
    this.#allocator.requireReferenced(start, end);
    // What is still to be loaded need not be; what is being read must land before it is thrown away.
    if (this.#loader?.state.cancel(this.#control, start, end) === true) this.#loader.awaitLoadSync(start, end);
    this.#mapping.decommit(range.start, range.end);
  }

  /**
   * A view of a range, also across chunks, up to 4 GiB. The same memory as long as the pages are referenced; length 0
   * after `destroy()`. Posting it to a Worker copies the range: use `share()`.
   *
   * @throws {RangeError} if a page has no reference @throws {NotLoadedError} if a page is not loaded yet
   */
  view(range: RangeLike): Uint8Array<ArrayBuffer>;
  view<T>(range: RangeLike, type: ViewConstructor<T>): T;
  view<T>(range: RangeLike, type: ViewConstructor<T> = Uint8Array as never): T {
    this.#requireReadable(range, "view()");
    return this.#views.cached(range.start, range.end, type) ?? this.#views.create(range.start, range.end, type);
  }

  /** The range's views, one a chunk, for ranges of any length. @throws as `view` */
  views(range: RangeLike): Uint8Array<ArrayBuffer>[] {
    this.#requireReadable(range, "views()");
    const views: Uint8Array<ArrayBuffer>[] = [];
    for (let start = range.start; start < range.end; ) {
      const end = Math.min(range.end, start - (start % CHUNK_SIZE) + CHUNK_SIZE);
      views.push(
        this.#views.cached(start, end, Uint8Array<ArrayBuffer>) ?? this.#views.create(start, end, Uint8Array<ArrayBuffer>),
      );
      start = end;
    }
    return views;
  }

  /** Resolves when no page is waste or being released. Dropped references release in the background anyway. */
  async released(): Promise<void> {
    this.#requireLive("released()");
    await this.#releaser.released();
  }

  /** Memory and swap that the kernel spends on the file: exact, from fstat(2). */
  get totalUsageBytes(): number {
    this.#requireLive("totalUsageBytes");
    return fileStatus(this.#mapping.fd).allocatedBytes;
  }

  /** The file's size: a multiple of CHUNK_SIZE, that only grows. */
  get totalSizeBytes(): number {
    this.#requireLive("totalSizeBytes");
    return this.#words[Word.SizePages]! * PAGE_SIZE;
  }

  /** Bytes with references. */
  get allocatedBytes(): number {
    this.#requireLive("allocatedBytes");
    return this.#words[Word.UsedPages]! * PAGE_SIZE;
  }

  /** The state of every page, a line for each run of equal pages. */
  toString(): string {
    this.#requireLive("toString()");
    return dumpRuns(this.#allocator);
  }

  /**
   * Writes a checkpoint into `directory` (created if need be): all referenced pages that hold something, their references,
   * kinds and groups, and `userData`. At every instant the directory holds the previous complete checkpoint or the new one.
   *
   * The program may go on meanwhile; of what it writes during the save, any page may be in the checkpoint or not.
   *
   * @throws {CheckpointBusyError} if a save into the directory, or of this file, is under way
   * @throws {SyscallError} ENOSPC and the like: the previous checkpoint is intact, temporary files are gone
   */
  async saveTo(directory: string, options: SaveOptions = {}): Promise<SaveReport> {
    this.#requireLive("saveTo()");
    options.signal?.throwIfAborted();
    if (options.userData !== undefined && !(options.userData instanceof Uint8Array)) {
      throw new TypeError(`Expected userData to be a Uint8Array, got ${typeof options.userData}`);
    }
    const save = this.#save(directory, options);
    this.#saves.add(save);
    try {
      return await save;
    } finally {
      this.#saves.delete(save);
    }
  }

  async #save(directory: string, options: SaveOptions): Promise<SaveReport> {
    await this.awaitLoad(undefined, { signal: options.signal });
    await this.#releaser.released();
    this.#requireLive("saveTo()");
    const { fd, base } = this.#mapping;
    return await saveCheckpoint({ allocator: this.#allocator, fd, base }, directory, options);
  }

  /**
   * Restores a file from a checkpoint directory. With `background` it returns as soon as the metadata stands; see
   * `awaitLoad`. The checkpoint's files may be deleted or replaced meanwhile: what is open stays readable.
   *
   * @throws {CorruptCheckpointError} if the directory holds no checkpoint, or one whose bytes are wrong
   * @throws {OutOfMemoryError} if it asks for more than limitBytes
   * @throws {SyscallError} if it cannot be read
   */
  static async loadFrom(directory: string, options: LoadOptions = {}): Promise<MemoryFile> {
    options.signal?.throwIfAborted();
    checkQueue(options.queue);
    const checkpoint = openCheckpoint(directory);
    const file = MemoryFile.#restore(checkpoint.image, checkpoint.pagesFd, checkpoint.pagesPath, options);
    if (options.background === true) return file;
    try {
      await file.awaitLoad(undefined, { signal: options.signal });
      return file;
    } catch (error) {
      file.destroy();
      throw error;
    }
  }

  static #restore(image: CheckpointImage, fd: number, path: string, options: LoadOptions): MemoryFile {
    let file: MemoryFile | undefined;
    try {
      const expectHugepages = options.expectHugepages ?? image.chunkHuge.includes(1);
      file = new MemoryFile(createParts({ ...options, expectHugepages }), image.userData);
      restoreRuns(file.#allocator, file.#control, image);
      const { control, base } = { control: file.#control, base: file.#mapping.base };
      const state = LoadState.create({
        sizePages: image.chunkHuge.length * PAGES_PER_CHUNK,
        extentStart: new Int32Array(image.extents.start),
        extentLength: new Int32Array(image.extents.length),
        checksums: image.checksums,
      });
      file.#loader = new Loader({ control, state, base, fd, path });
    } catch (error) {
      closeFile(fd);
      file?.destroy();
      throw error;
    }
    file.#startLoading(options);
    return file;
  }

  #startLoading(options: LoadOptions): void {
    const loader = this.#loader!;
    if (loader.state.words[LoadWord.PendingPages] === 0) {
      closeFile(loader.fd);
      return;
    }
    Atomics.store(this.#words, Word.Loading, 1);
    const { signal, onProgress } = options;
    const onAbort = () => loader.abort(signal?.reason);
    signal?.addEventListener("abort", onAbort, { once: true });
    const report = () => {
      try {
        onProgress?.(loader.stats());
      } catch (error) {
        loader.abort(error);
      }
    };
    const timer = onProgress === undefined ? undefined : setInterval(report, PROGRESS_INTERVAL_MS);
    timer?.unref();
    void loader.start(options.queue ?? "auto").then(() => {
      clearInterval(timer);
      signal?.removeEventListener("abort", onAbort);
      if (!this.#isDetached) report();
    });
  }

  /** True while a restore goes on in the background. */
  get isLoading(): boolean {
    this.#requireLive("isLoading");
    return this.#words[Word.Loading] !== 0 && (this.#loader?.isLoading ?? false);
  }

  /** True if every page of the range is in place. @throws {RangeError} for a bad range */
  isLoaded(range: RangeLike): boolean {
    this.#requireRange(range, "isLoaded()");
    if (this.#words[Word.Loading] === 0) return true;
    return this.#loader!.isLoaded(range.start / PAGE_SIZE, range.end / PAGE_SIZE);
  }

  /** What the restore has done so far; all zeros for a file that was not restored. */
  loadStats(): LoadStats {
    this.#requireLive("loadStats()");
    return this.#loader?.stats() ?? NOTHING_LOADED;
  }

  /**
   * Resolves when the range is loaded, ahead of everything that nobody waits for; without a range, when all is.
   *
   * @throws {CorruptCheckpointError} {SyscallError} if a page of it cannot be loaded
   * @throws the signal's reason; the load itself goes on
   */
  async awaitLoad(range?: RangeLike, options: { readonly signal?: AbortSignal | undefined } = {}): Promise<void> {
    const pages = this.#pagesToAwait(range, "awaitLoad()");
    if (pages !== null) await this.#loader!.awaitLoad(pages.start, pages.end, range !== undefined, options.signal);
    else options.signal?.throwIfAborted();
  }

  /** As `awaitLoad`, blocking this thread: for Workers and for start-up code. */
  awaitLoadSync(range?: RangeLike): void {
    const pages = this.#pagesToAwait(range, "awaitLoadSync()");
    if (pages !== null) this.#loader!.awaitLoadSync(pages.start, pages.end);
  }

  #pagesToAwait(range: RangeLike | undefined, method: string): { start: number; end: number } | null {
    if (range === undefined) this.#requireLive(method);
    else this.#requireRange(range, method);
    if (this.#words[Word.Loading] === 0) return null;
    if (range === undefined) return { start: 0, end: this.#words[Word.SizePages]! };
    return { start: range.start / PAGE_SIZE, end: range.end / PAGE_SIZE };
  }

  /**
   * Ends the file for all its threads. Every view that was ever handed out has length 0 when this returns (in other
   * threads: at their next call or turn); memory is unmapped as soon as no load, save or pinned buffer uses it.
   * Calling it again does nothing.
   */
  destroy(): void {
    if (this.#isDetached) return;
    this.#participants.destroy();
    this.#leave();
  }

  [Symbol.dispose](): void {
    this.destroy();
  }

  /** This thread stops using the file: at once where it can, or when what it has under way has ended. */
  #leave(): void {
    if (this.#isDetached) return;
    this.#isDetached = true;
    this.#allocator.detach();
    const loader = this.#loader;
    if (this.#views.detachAll() && (loader?.isFinished ?? true) && this.#saves.size === 0) {
      loader?.close();
      this.#unmapIfLast();
    } else {
      void this.#leaveLater();
    }
  }

  async #leaveLater(): Promise<void> {
    await this.#loader?.stop(new DestroyedError(describe(this.name), "awaitLoad()"));
    await Promise.allSettled(this.#saves);
    // Buffers that I/O pins cannot be detached before it ends, and detaching them by force would copy them.
    while (!this.#views.detachAll()) await new Promise((resolve) => setTimeout(resolve, 5).unref());
    this.#unmapIfLast();
  }

  #unmapIfLast(): void {
    this.#participants.leave(() => {
      this.#tables.unmap();
      this.#mapping.destroy();
    });
  }

  #requireLive(method: string): void {
    if (this.#words[Word.Destroyed] === 0) return;
    this.#leave();
    throw new DestroyedError(describe(this.name), method);
  }

  #requireRange(range: RangeLike, method: string): void {
    this.#requireLive(method);
    checkRange(range, this.#words[Word.SizePages]! * PAGE_SIZE);
  }

  #requireReadable(range: RangeLike, method: string): void {
    this.#requireRange(range, method);
    const start = range.start / PAGE_SIZE;
    const end = range.end / PAGE_SIZE;
    this.#allocator.requireReferenced(start, end);
    if (this.#words[Word.Loading] === 0 || this.#loader!.isLoaded(start, end)) return;
    const cause = this.#loader!.failureOf(start, end);
    throw new NotLoadedError(range.start, range.end, cause === undefined ? undefined : { cause });
  }
}
