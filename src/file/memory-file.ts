/**
 * MemoryFile: page-granular, reference-counted memory outside the JavaScript heap, that can be
 * checkpointed and restored in the background. A port of gVisor's pkg/sentry/pgalloc; the states of
 * pages are described in allocator/states.ts.
 *
 * This file and page-memory.ts are the public surface: they check arguments and hand them on.
 * core/core.ts holds what a file is made of; ARCHITECTURE.md shows the way through the rooms.
 */
import { MAIN_NAME } from "../checkpoint/format.ts";
import { attachCore, FileCore } from "../core/core.ts";
import { describeFile, describeHandle, INSPECT, REFUSES_CLONES } from "../core/describe.ts";
import {
  type AttachOptions,
  checkQueue,
  checkWatchers,
  copyUserData,
  type LoadOptions,
  type MemoryFileHandle,
  type MemoryFileOptions,
  type Nullable,
  type OpenOptions,
  readOptions,
} from "../core/options.ts";
import { endRecording, workingSetStats } from "../restore/working-set.ts";
import { awaitLoad, awaitLoadSync, retryLoad } from "./await-load.ts";
import { type PeriodicOptions, PeriodicSaves } from "./periodic-saves.ts";
import { watchForgotten } from "./forgotten.ts";
import { PageMemory, replaceCore } from "./page-memory.ts";
import { makeReadOnly } from "./read-only.ts";
import { showValue } from "../../ffi/index.ts";
import { resolvePlace } from "../remote/place.ts";
import { resolveLoadOptions, restoreFile } from "./restore-file.ts";
import { createParts } from "../core/parts.ts";
import type { WaitOptions } from "../core/wait.ts";
import { keepServed } from "../core/service.ts";
import { NoCheckpointError, UnsupportedError } from "../errors/errors.ts";
import { type LoadStats, NOTHING_LOADED } from "../load/load-stats.ts";
import { type FileMetrics, metricsOf } from "../metrics/metrics.ts";
import { recordSave } from "../metrics/record.ts";
import type { RangeLike } from "../pages/range.ts";
import type { RestoreOrigin } from "../restore/refresh.ts";
import { type SaveOptions, type SaveReport, saveFiles } from "../save/save.ts";

/** For the library's other modules: the core of a file, and a file over a core. */
export let coreOf: (file: MemoryFile) => FileCore;
export let fileOver: (core: FileCore, userData: Uint8Array | null) => MemoryFile;

/** `onSave` and `onError` beside the options of each save. */
export type CheckpointEveryOptions = SaveOptions & PeriodicOptions<SaveReport>;

const NO_OPTIONS = Object.freeze({});

export class MemoryFile extends PageMemory implements Disposable {
  /**
   * What the program stored beside its pages in the checkpoint that this file was restored from.
   */
  get userData(): Uint8Array | null {
    return this.#userData;
  }
  #userData: Uint8Array | null;
  readonly name: string;
  /** Another one after `refresh`. */
  #core: FileCore;
  /** Of a file that `loadFrom` restored. */
  #origin: RestoreOrigin | undefined;
  #refreshing: Promise<boolean> | undefined;
  /** Where this file was saved to last, or loaded from: for `compact`. */
  #place: string | undefined;

  static {
    coreOf = (file) => file.#core;
    fileOver = (core, userData) => new MemoryFile(core, userData);
  }

  private constructor(core: FileCore, userData: Uint8Array | null) {
    super(core);
    this.#core = core;
    this.#userData = userData;
    this.name = core.name;
    watchForgotten(this, core);
    // structuredClone and postMessage look at string keys only.
    Object.defineProperty(this, "use share()", { value: REFUSES_CLONES, enumerable: true });
  }

  /**
   * Makes an empty file.
   *
   * @throws {TypeError} {RangeError} for a bad option
   * @throws {SyscallError} if the kernel refuses the file or its address space
   */
  static create(options: Nullable<MemoryFileOptions> | null = NO_OPTIONS): MemoryFile {
    return new MemoryFile(new FileCore(createParts(options ?? NO_OPTIONS)), null);
  }

  /**
   * Opens a file that another thread of this process shares. All MemoryFile objects of one file in
   * one thread are one participant: `destroy` of one ends them all.
   *
   * A consistent save stops all threads that attached: see `safepoint`. One that attaches with
   * `readOnly` never has to stop. It promises not to write to views, and methods that change the
   * file throw a ReadOnlyError.
   *
   * @throws {TypeError} for a handle that `share()` of a file of this process did not make
   * @throws {DestroyedError} if the file was destroyed meanwhile
   * @throws {TooManyThreadsError} if 192 threads use it
   */
  static attach(handle: MemoryFileHandle, options?: Nullable<AttachOptions> | null): MemoryFile {
    const isReadOnly = readOptions<AttachOptions>(options).readOnly === true;
    const core = attachCore(handle, isReadOnly);
    keepServed(core, handle);
    const file = new MemoryFile(core, handle.userData);
    return isReadOnly ? makeReadOnly(file) : file;
  }

  /** A handle for other threads of this process: post it to a Worker and `attach` it there. */
  share(): MemoryFileHandle {
    this.#core.requireLive("share()");
    const loader = this.#core.loader;
    this.#core.share();
    this.#core.joinStops();
    const load = loader?.state.handle ?? null;
    const handle = describeHandle({
      kind: "pgalloc.MemoryFile",
      name: this.name,
      control: this.#core.control.buffer,
      load,
      userData: this.userData,
    });
    keepServed(this.#core, handle);
    return handle;
  }

  /**
   * Stops here while another thread saves the file at one instant: for turns that take long. Costs
   * a look at one word otherwise. A thread also stops between turns of its event loop and in
   * `awaitLoadSync`, and nowhere else: what it writes between two such points is saved as a whole.
   *
   * (I/O that is under way into a view is the program's: it goes on.)
   */
  safepoint(): void {
    this.#core.requireLive("safepoint()");
    this.#core.stops.safepoint();
  }

  /**
   * Runs `work`, which blocks this thread and uses nothing of the file, and returns what it
   * returns. This thread counts as stopped meanwhile, so that a save need not wait for it. What a
   * promise stands for goes on after that, and is not covered. @throws {TypeError} for no function
   */
  parked<T>(work: () => T): T {
    this.#core.requireLive("parked()");
    return this.#core.stops.parked(work);
  }

  /** Name, sizes and state, in one line. `dump()` lists the pages. */
  override toString(): string {
    this.#core.requireLive("toString()");
    return describeFile(this.#core);
  }

  /** For template strings: as `toString`, also after `destroy()`. */
  [Symbol.toPrimitive](): string {
    return describeFile(this.#core);
  }

  [INSPECT](): string {
    return describeFile(this.#core);
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
  async saveTo(directory: string, given?: Nullable<SaveOptions> | null): Promise<SaveReport> {
    this.#core.requireLive("saveTo()");
    const place = resolvePlace(directory);
    const options = readOptions<SaveOptions>(given);
    checkWatchers(options);
    const userData = copyUserData("userData", options.userData);
    const file = { name: MAIN_NAME, core: this.#core, userData };
    const save = saveFiles([file], null, place, options);
    const report = await recordSave([this.#core], place, save);
    this.#place = place;
    return report;
  }

  /**
   * Writes the checkpoint at `where` anew: all contents in one page file, without garbage. Saves
   * keep garbage bounded by themselves, so that only the smallest checkpoint needs this.
   *
   * @param where default: the place that this file was saved to last, or loaded from
   * @throws {TypeError} if there is no such place @throws as `saveTo`
   */
  async compact(
    where: string | null = this.#place ?? null,
    options?: Nullable<SaveOptions> | null,
  ): Promise<SaveReport> {
    this.#core.requireLive("compact()");
    if (where === null)
      throw new TypeError("Expected where: this file was neither saved nor loaded before");
    return await this.saveTo(where, { ...options, incremental: false });
  }

  /**
   * Saves to `where` in the background, `everyMs` after the last save began, until `stop()` of what
   * it returns, the signal, or the file's end. The timer keeps no process alive. Saves never
   * overlap, wait longer after errors, and take at most 5 % of the time in pauses.
   *
   * @throws {TypeError} {RangeError} for a bad option
   */
  checkpointEvery(
    where: string,
    everyMs: number,
    options?: Nullable<CheckpointEveryOptions> | null,
  ): PeriodicSaves<SaveReport> {
    this.#core.requireLive("checkpointEvery()");
    const read = readOptions<CheckpointEveryOptions>(options);
    const place = resolvePlace(where);
    return new PeriodicSaves(() => this.saveTo(place, read), everyMs, read);
  }

  /**
   * The pages of a range were, or may have been, written in a way that saves do not see: by a write
   * to the memory file itself, or through another mapping. Writes to views need no mark.
   */
  markWritten(range: RangeLike): void {
    this.#core.requireRange(range, "markWritten()");
    this.#core.changes.mark(this.#core.startPage, this.#core.endPage);
  }

  /**
   * Restores the checkpoint at `where`, or makes an empty file if there is none and `create` is
   * true. A damaged checkpoint never counts as none.
   *
   * @throws {NoCheckpointError} if there is none, without `create`, or as `loadFrom` and `create`
   */
  static async open(where: string, given?: Nullable<OpenOptions> | null): Promise<MemoryFile> {
    const place = resolvePlace(where);
    const { create = false, ...options } = resolveLoadOptions(
      place,
      readOptions<OpenOptions>(given),
    );
    if (typeof create !== "boolean")
      throw new TypeError(`Expected create to be a boolean, got ${showValue(create)}`);
    try {
      return await MemoryFile.loadFrom(place, options);
    } catch (error) {
      if (!create || !(error instanceof NoCheckpointError)) throw error;
      return MemoryFile.create(options);
    }
  }

  /**
   * Restores a file from a checkpoint directory. With `background` it returns as soon as the
   * metadata is restored; see `awaitLoad`. The checkpoint's files may be deleted or replaced
   * meanwhile: what is open stays readable.
   *
   * @throws {SeveralFilesError} if the checkpoint has several files: see `loadAll`
   * @throws {CorruptCheckpointError} if the directory holds no checkpoint, or a damaged one
   * @throws {OutOfMemoryError} if it asks for more than limitBytes
   * @throws {SyscallError} if it cannot be read
   */
  static async loadFrom(
    directory: string,
    given?: Nullable<LoadOptions> | null,
  ): Promise<MemoryFile> {
    const place = resolvePlace(directory);
    const options = resolveLoadOptions(place, readOptions<LoadOptions>(given));
    checkWatchers(options);
    checkQueue(options.queue);
    const { core, userData, manifest, finish } = await restoreFile(place, options);
    const file = new MemoryFile(core, userData);
    file.#place = place;
    file.#origin = { where: place, options, manifest };
    await finish();
    return file;
  }

  /**
   * Becomes the newest checkpoint of the place that the file was loaded from. For programs that
   * only read: unchanged pages are copied in memory, and only the others are loaded. Views that
   * were taken before have length 0 afterwards, as after `destroy`; attached threads must attach
   * again. Resolves with false, and changes nothing, if there is no newer checkpoint. What the
   * program has written since the load is lost, or kept where its page has not changed.
   *
   * @throws {UnsupportedError} for a file that `loadFrom` did not restore
   * @throws what `loadFrom` throws; the file is as it was
   */
  async refresh(): Promise<boolean> {
    this.#refreshing ??= this.#refresh().finally(() => {
      this.#refreshing = undefined;
    });
    return await this.#refreshing;
  }

  async #refresh(): Promise<boolean> {
    this.#core.requireLive("refresh()");
    const origin = this.#origin;
    if (origin === undefined)
      throw new UnsupportedError("Cannot refresh a file that loadFrom() did not restore");
    const { refreshCore } = await import("../restore/refresh.ts");
    const before = this.#core;
    const refreshed = await refreshCore(before, origin);
    if (refreshed === undefined) return false;
    const [core] = refreshed.restored.cores;
    await refreshed.restored.finish();
    if (before.isDetached) core!.destroy();
    before.requireLive("refresh()");
    this.#core = core!;
    replaceCore(this, core!);
    this.#origin = refreshed.origin;
    this.#userData = refreshed.origin.manifest.files[0]!.userData;
    watchForgotten(this, core!);
    before.destroy();
    return true;
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
    const stats = this.#core.loader?.stats() ?? NOTHING_LOADED;
    return { ...stats, ...workingSetStats(this.#core) };
  }

  /**
   * Ends the recording of the working set: what the program uses from now on is no part of its
   * start. Without this call recording ends after 300 ms in which the program awaits or views
   * nothing new, and after 10 s at most.
   */
  markReady(): void {
    this.#core.requireLive("markReady()");
    endRecording(this.#core);
  }

  /** Counters of all threads since the file was made: memory, load, waits, saves, errors. */
  metrics(): FileMetrics {
    this.#core.requireLive("metrics()");
    return metricsOf(this.#core);
  }

  /**
   * Resolves when the range is loaded, which goes ahead of the background pass; without a range,
   * when all is loaded.
   *
   * @throws {CorruptCheckpointError} {SyscallError} if a page of it cannot be loaded
   * @throws the signal's reason; the load itself goes on
   */
  async awaitLoad(range?: RangeLike | null, options?: WaitOptions | null): Promise<void> {
    await awaitLoad(this.#core, range, options);
  }

  /**
   * Tries again what could not be loaded of the range (without a range: of the file), and continues
   * a load that its signal had aborted. Resolves and rejects as `awaitLoad` does: until then every
   * waiter is told of the failure.
   */
  async retryLoad(range?: RangeLike | null, options?: WaitOptions | null): Promise<void> {
    await retryLoad(this.#core, range, options);
  }

  /** As `awaitLoad`, blocking this thread: for Workers and for start-up code. */
  awaitLoadSync(range?: RangeLike | null): void {
    awaitLoadSync(this.#core, range);
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
}
