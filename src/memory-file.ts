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
import { openCheckpoint } from "./checkpoint/directory.ts";
import type { CheckpointImage } from "./checkpoint/format.ts";
import { type SaveOptions, type SaveReport, saveCheckpoint } from "./checkpoint/save.ts";
import { DestroyedError, NotLoadedError, OutOfMemoryError } from "./errors.ts";
import { checkRange, FileRange, type RangeLike } from "./file-range.ts";
import { Loader, type LoadQueue, type LoadStats } from "./load/loader.ts";
import { LoadState, LoadWord } from "./load/load-state.ts";
import { Mapping } from "./mapping/mapping.ts";
import { type ViewConstructor, Views } from "./mapping/views.ts";
import { Releaser } from "./releaser.ts";
import { type Control, createControl, Field, openControl, Word } from "./shared/control.ts";
import { Participants } from "./shared/participants.ts";
import { CHUNK_SIZE, HUGE_PAGE_SIZE, MAX_GROUP, MAX_KIND, MemoryKind, PAGE_SIZE, PAGES_PER_CHUNK } from "./units.ts";

/** Address space that a file reserves unless `limitBytes` asks for more. Reserved is not used: it costs nothing. */
const DEFAULT_CAPACITY_BYTES = 256 * CHUNK_SIZE;
const MAX_CAPACITY_BYTES = 1024 * CHUNK_SIZE;
const PROGRESS_INTERVAL_MS = 50;

/** How pages are committed when they are allocated. */
export type AllocationMode =
  /** Pages are uncommitted; the kernel gives memory when they are touched. The default. */
  | "uncommitted"
  /** The caller will commit every page, not through our mapping: pages may be recycled, and so committed. */
  | "callerIndirectCommit"
  /** Pages are committed when `allocate` returns. */
  | "commit"
  /** Pages are committed and mapped for writing when `allocate` returns, as far as the kernel can. */
  | "writePopulate";

export interface AllocateOptions {
  /** Whom the memory is accounted to: a MemoryKind or the program's own, 0 to 255. Default: Anonymous. */
  readonly kind?: number | undefined;
  /** Accounting group, 0 to 2^32 - 1. Default: 0, none. */
  readonly group?: number | undefined;
  readonly mode?: AllocationMode | undefined;
  /** Place it in memory meant for huge pages; the length must be a multiple of HUGE_PAGE_SIZE. */
  readonly huge?: boolean | undefined;
  readonly direction?: "bottomUp" | "topDown" | undefined;
  /**
   * Fills the new pages: called with what is still to fill, returns how many bytes it wrote, 0 at the end of its data.
   * Pages behind the last whole page that was filled are released again, and the returned range is shorter.
   */
  readonly fill?: ((destination: Uint8Array) => number) | undefined;
}

export interface MemoryFileOptions {
  /** Shown in /proc/PID/maps. Default: "pgalloc". */
  readonly name?: string | undefined;
  /** The most bytes that may be in use at once, up to 1 TiB. Default: 256 GiB of address space is the limit. */
  readonly limitBytes?: number | undefined;
  /** A file on disk to hold the memory; created, or emptied. Default: anonymous memory. */
  readonly path?: string | undefined;
  /** Keep allocations with `huge` apart from others. Default: false, `huge` is ignored then. */
  readonly expectHugepages?: boolean | undefined;
  /** madvise(MADV_HUGEPAGE) for chunks of huge allocations. */
  readonly adviseHugepage?: boolean | undefined;
  /** madvise(MADV_NOHUGEPAGE) for chunks of other allocations. */
  readonly adviseNoHugepage?: boolean | undefined;
}

export interface LoadOptions extends MemoryFileOptions {
  /** Return as soon as the metadata stands, and load behind the running program. Default: false. */
  readonly background?: boolean | undefined;
  /** Ends the load. What is loaded stays; waiters, and later ones, get the signal's reason. */
  readonly signal?: AbortSignal | undefined;
  /** Called now and then, and once when all is loaded. What it throws ends the load. */
  readonly onProgress?: ((progress: LoadStats) => void) | undefined;
  readonly queue?: LoadQueue | undefined;
}

/** What `share()` gives: structured-cloneable. */
export interface MemoryFileHandle {
  readonly kind: "pgalloc.MemoryFile";
  readonly name: string;
  readonly control: SharedArrayBuffer;
  readonly load: { readonly state: SharedArrayBuffer; readonly fd: number; readonly path: string } | null;
}

interface Parts {
  readonly control: Control;
  readonly name: string;
  readonly mapping: Mapping;
  readonly tables: ReturnType<typeof Allocator.createTables>;
}

const MODES: readonly string[] = ["uncommitted", "callerIndirectCommit", "commit", "writePopulate"];
const Flag = { ExpectHugepages: 1, AdviseHugepage: 2, AdviseNoHugepage: 4 } as const;

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
    if (handle === null || typeof handle !== "object" || handle.kind !== "pgalloc.MemoryFile") {
      throw new TypeError("Expected a handle made by MemoryFile.share()");
    }
    const control = openControl(handle.control);
    if (Atomics.load(control.words, Word.Destroyed) !== 0)
      throw new DestroyedError(describe(handle.name), "MemoryFile.attach()");
    const { fields } = control;
    const flags = fields[Field.Flags]!;
    const capacityPages = fields[Field.CapacityPages]!;
    const mapping = new Mapping(fields[Field.Fd]!, fields[Field.BaseAddress]!, capacityPages * PAGE_SIZE, {
      adviseHugepage: (flags & Flag.AdviseHugepage) !== 0,
      adviseNoHugepage: (flags & Flag.AdviseNoHugepage) !== 0,
    });
    const tables = Allocator.attachTables(fields[Field.TableAddress]!, capacityPages);
    const file = new MemoryFile({ control, name: handle.name, mapping, tables }, null);
    if (handle.load !== null) {
      const { fd, path } = handle.load;
      file.#loader = new Loader({ control, state: new LoadState(handle.load.state), base: mapping.base, fd, path });
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
    const huge = options.huge ?? false;
    checkLength(lengthBytes, huge);
    const mode = options.mode ?? "uncommitted";
    const kind = options.kind ?? MemoryKind.Anonymous;
    const group = options.group ?? 0;
    if (!MODES.includes(mode)) throw new TypeError(`Expected mode to be one of ${MODES.join(", ")}, got ${String(mode)}`);
    if (kind !== MemoryKind.Anonymous) checkInteger("kind", kind, 0, MAX_KIND);
    if (group !== 0) checkInteger("group", group, 0, MAX_GROUP);
    const start = this.#place({
      pages: lengthBytes / PAGE_SIZE,
      huge: huge && this.#expectHugepages,
      topDown: isTopDown(options.direction),
      willCommit: mode !== "uncommitted",
      kind,
      group,
    });
    const range = new FileRange(start * PAGE_SIZE, start * PAGE_SIZE + lengthBytes);
    if (mode !== "uncommitted") this.#commit(range, mode, huge && this.#expectHugepages);
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
      file.#restoreRuns(image);
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

  #restoreRuns(image: CheckpointImage): void {
    const { chunkHuge, runs } = image;
    const allocator = this.#allocator;
    const limitPages = this.#control.fields[Field.LimitPages]!;
    const usedPages = runs.length.reduce((sum, pages, i) => sum + (runs.refs[i]! > 0 ? pages : 0), 0);
    const sizePages = chunkHuge.length * PAGES_PER_CHUNK;
    if (usedPages > limitPages || sizePages > this.#control.fields[Field.CapacityPages]!) {
      throw new OutOfMemoryError(Math.max(usedPages, sizePages) * PAGE_SIZE, limitPages * PAGE_SIZE, 0);
    }
    allocator.lock();
    try {
      for (let chunk = 0; chunk < chunkHuge.length; ) {
        let end = chunk + 1;
        while (end < chunkHuge.length && chunkHuge[end] === chunkHuge[chunk]) end++;
        allocator.addChunks(end - chunk, chunkHuge[chunk] === 1);
        chunk = end;
      }
      for (let i = 0; i < runs.start.length; i++) {
        const start = runs.start[i]!;
        allocator.restoreRun(start, start + runs.length[i]!, runs.state[i]!, runs.refs[i]!, runs.kind[i]!, runs.group[i]!);
      }
    } finally {
      allocator.unlock();
    }
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

const NOTHING_LOADED: LoadStats = {
  isLoading: false,
  totalBytes: 0,
  loadedBytes: 0,
  failedBytes: 0,
  demandBytes: 0,
  hugeBytes: 0,
  readCalls: 0,
  error: null,
};

function describe(name: string): string {
  return `MemoryFile "${name}"`;
}

function checkLength(lengthBytes: number, huge: boolean): void {
  checkInteger("lengthBytes", lengthBytes, 1);
  const unit = huge ? HUGE_PAGE_SIZE : PAGE_SIZE;
  if (lengthBytes % unit !== 0) throw new RangeError(`Expected lengthBytes to be a multiple of ${unit}, got ${lengthBytes}`);
}

function isTopDown(direction: string | undefined): boolean {
  if (direction === undefined || direction === "bottomUp") return false;
  if (direction === "topDown") return true;
  throw new TypeError(`Expected direction to be "bottomUp" or "topDown", got ${JSON.stringify(direction)}`);
}

function checkQueue(queue: string | undefined): void {
  if (queue === undefined || queue === "auto" || queue === "workers" || queue === "inline") return;
  throw new TypeError(`Expected queue to be "auto", "workers" or "inline", got ${JSON.stringify(queue)}`);
}

function createParts(options: MemoryFileOptions): Parts {
  const { limitBytes } = options;
  if (limitBytes !== undefined) {
    checkInteger("limitBytes", limitBytes, PAGE_SIZE, MAX_CAPACITY_BYTES);
    if (limitBytes % PAGE_SIZE !== 0)
      throw new RangeError(`Expected limitBytes to be a multiple of ${PAGE_SIZE}, got ${limitBytes}`);
  }
  const name = options.name ?? "pgalloc";
  if (typeof name !== "string") throw new TypeError(`Expected name to be a string, got ${typeof name}`);
  // Twice the limit: fragmentation and chunks of both page sizes need room beyond what is in use.
  const wanted = Math.max(DEFAULT_CAPACITY_BYTES, 2 * (limitBytes ?? 0));
  const capacityBytes = Math.min(MAX_CAPACITY_BYTES, Math.ceil(wanted / CHUNK_SIZE) * CHUNK_SIZE);
  const mapping = Mapping.create(capacityBytes, {
    name,
    path: options.path,
    adviseHugepage: options.adviseHugepage ?? false,
    adviseNoHugepage: options.adviseNoHugepage ?? false,
  });
  const tables = Allocator.createTables(capacityBytes / PAGE_SIZE);
  const control = createControl();
  const { fields } = control;
  fields[Field.BaseAddress] = mapping.base;
  fields[Field.TableAddress] = tables.address;
  fields[Field.CapacityPages] = capacityBytes / PAGE_SIZE;
  fields[Field.LimitPages] = (limitBytes ?? capacityBytes) / PAGE_SIZE;
  fields[Field.Fd] = mapping.fd;
  fields[Field.Flags] =
    (options.expectHugepages === true ? Flag.ExpectHugepages : 0) |
    (options.adviseHugepage === true ? Flag.AdviseHugepage : 0) |
    (options.adviseNoHugepage === true ? Flag.AdviseNoHugepage : 0);
  return { control, name, mapping, tables };
}
