/**
 * The public surface, with page-memory.ts: checks arguments and calls other folders. A port of
 * gVisor's pkg/sentry/pgalloc. allocator/states.ts describes the states of pages.
 */
import { MAIN_NAME } from "../checkpoint/format.ts";
import { attachCore, FileCore } from "../core/core.ts";
import { describeFile, describeHandle, INSPECT, REFUSES_CLONES } from "../core/describe.ts";
import {
  type AttachOptions,
  checkLoadOptions,
  checkWatchers,
  copyUserData,
  type LoadOptions,
  type MemoryFileHandle,
  type MemoryFileOptions,
  type Nullable,
  type OpenOptions,
  readOptions,
} from "../core/options.ts";
import { endRecording, rebindWorkingSet, workingSetStats } from "../restore/working-set.ts";
import { awaitLoad, awaitLoadSync, retryLoad } from "./await-load.ts";
import { type PeriodicOptions, PeriodicSaves } from "./periodic-saves.ts";
import { watchForgotten } from "./forgotten.ts";
import { PageMemory, replaceCore } from "./page-memory.ts";
import { makeReadOnly } from "./read-only.ts";
import { checkBoolean } from "../../ffi/index.ts";
import { resolvePlace } from "../remote/place.ts";
import { createFileFor, resolveLoadOptions, restoreFile } from "./restore-file.ts";
import { createParts } from "../core/parts.ts";
import type { WaitOptions } from "../core/wait.ts";
import { keepServed } from "../core/service.ts";
import { onUse } from "../errors/lazy-import.ts";
import { NoCheckpointError, UnsupportedError } from "../errors/errors.ts";
import { type LoadStats, NOTHING_LOADED } from "../load/load-stats.ts";
import { type FileMetrics, metricsOf } from "../metrics/metrics.ts";
import { recordSave } from "../metrics/record.ts";
import type { RangeLike } from "../pages/range.ts";
import type { RestoreOrigin } from "../restore/refresh.ts";
import { checkSaveOptions } from "../save/options.ts";
import { type SaveOptions, type SaveReport, saveFiles } from "../save/save.ts";

/** For the library's other modules: the core of a file, and a file over a core. */
export let coreOf: (file: MemoryFile) => FileCore;
export let fileOver: (core: FileCore, userData: Uint8Array | null) => MemoryFile;

/** `onSave` and `onError` beside the options of each save. */
export type CheckpointEveryOptions = SaveOptions & PeriodicOptions<SaveReport>;

const importRefresh = onUse(() => import("../restore/refresh.ts"));
const NO_OPTIONS = Object.freeze({});

/**
 * Reference-counted pages outside the JavaScript heap, saved to checkpoints and restored from them.
 */
export class MemoryFile extends PageMemory implements Disposable {
  /** The user data that the program stored in the checkpoint from which this file was restored. */
  get userData(): Uint8Array | null {
    return this.#userData;
  }
  #userData: Uint8Array | null;
  readonly name: string;
  /** `refresh` replaces it. */
  #core: FileCore;
  /** Set if `loadFrom` restored the file. */
  #origin: RestoreOrigin | undefined;
  #refreshing: Promise<boolean> | undefined;
  /** The place of the last save, or of the load: the default of `compact`. */
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
    // structuredClone and postMessage read only string keys.
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
   * A consistent save stops all threads that attached: see `safepoint`. A thread that attaches with
   * `readOnly` never has to stop. It promises not to write to views, and methods that change the
   * file throw a ReadOnlyError.
   *
   * @throws {TypeError} if the handle was not made by `share()` of a file of this process
   * @throws {DestroyedError} if the file was destroyed meanwhile
   * @throws {TooManyThreadsError} if 192 threads use it
   */
  static attach(handle: MemoryFileHandle, options?: Nullable<AttachOptions> | null): MemoryFile {
    const { readOnly: isReadOnly = false } = readOptions<AttachOptions>(options);
    checkBoolean("readOnly", isReadOnly);
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
   * For long turns of the event loop: stops here while another thread saves the file at one
   * instant; else it only reads a word. A thread also stops between turns and in `awaitLoadSync`,
   * nowhere else: what it writes between two such points is saved as a whole. I/O goes on.
   */
  safepoint(): void {
    this.#core.requireLive("safepoint()");
    this.#core.stops.safepoint();
  }

  /**
   * Runs `work`, which blocks this thread and does not use the file, and returns its result. This
   * thread counts as stopped meanwhile, so a save need not wait for it. A promise that `work`
   * returns is not covered. @throws {TypeError} unless `work` is a function
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

  /** For template strings: as `toString`. Also works after `destroy()`. */
  [Symbol.toPrimitive](): string {
    return describeFile(this.#core);
  }

  [INSPECT](): string {
    return describeFile(this.#core);
  }

  /**
   * Writes a checkpoint into `directory`, which is created if needed: all referenced pages that are
   * not zero, their references, kinds and groups, and `userData`. At every instant the directory
   * has either the previous complete checkpoint or the new one.
   *
   * The program may continue meanwhile: the checkpoint shows one instant. With `consistent: false`
   * it shows each page at some moment of the save.
   *
   * @throws {CheckpointBusyError} {CheckpointConflictError} if another writer saves there
   * @throws {SyscallError} ENOSPC, for example: the previous checkpoint is intact, temporary files
   * are gone
   */
  async saveTo(directory: string, given?: Nullable<SaveOptions> | null): Promise<SaveReport> {
    this.#core.requireLive("saveTo()");
    const place = resolvePlace(directory);
    const options = readOptions<SaveOptions>(given);
    checkWatchers(options);
    const userData = copyUserData("userData", options.userData);
    const save = saveFiles([{ name: MAIN_NAME, core: this.#core, userData }], null, place, options);
    const report = await recordSave([this.#core], place, save);
    this.#place = place;
    if (this.#origin?.where === place) rebindWorkingSet(this.#core, report.id);
    return report;
  }

  /**
   * Writes the checkpoint at `where` again, with all contents in one page file and without garbage.
   * Saves limit garbage by themselves, so this is only for the smallest possible checkpoint.
   *
   * @param where default: the place of the last save, or of the load
   * @throws {TypeError} if there is no such place
   * @throws as `saveTo`
   */
  async compact(
    where: string | null = this.#place ?? null,
    options?: Nullable<SaveOptions> | null,
  ): Promise<SaveReport> {
    this.#core.requireLive("compact()");
    if (where === null)
      throw new TypeError("Expected where: this file was neither saved nor loaded before");
    return await this.saveTo(where, { ...readOptions(options), incremental: false });
  }

  /**
   * Saves to `where` in the background, `everyMs` after the last save began, until the result's
   * `stop()`, the signal, or the file's end. The timer keeps no process alive. Saves never overlap,
   * wait longer after errors, and pause the program at most 5 % of the time.
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
    checkSaveOptions(place, read);
    return new PeriodicSaves(() => this.saveTo(place, read), everyMs, read);
  }

  /**
   * Marks the pages of a range as written, for writes that saves do not see: to the memory file
   * itself, or through another mapping. Writes to views need no mark.
   */
  markWritten(range: RangeLike): void {
    this.#core.requireRange(range, "markWritten()");
    this.#core.changes.mark(this.#core.startPage, this.#core.endPage);
  }

  /**
   * Restores the checkpoint at `where`, or makes an empty file if there is none and `create` is
   * true. A damaged checkpoint is an error in both cases. In S3 the empty file replaces no
   * checkpoint that another writer publishes there.
   *
   * @throws {NoCheckpointError} if there is none and `create` is not true
   * @throws as `loadFrom` and `create`
   */
  static async open(where: string, given?: Nullable<OpenOptions> | null): Promise<MemoryFile> {
    const place = resolvePlace(where);
    const { create = false, ...options } = resolveLoadOptions(
      place,
      readOptions<OpenOptions>(given),
    );
    checkBoolean("create", create);
    try {
      return await MemoryFile.loadFrom(place, options);
    } catch (error) {
      if (!create || !(error instanceof NoCheckpointError)) throw error;
      return new MemoryFile(createFileFor(place, options), null);
    }
  }

  /**
   * Restores a file from a checkpoint directory. With `background` it returns as soon as the
   * metadata is restored; see `awaitLoad`. The checkpoint's files may be deleted or replaced
   * meanwhile, because open files stay readable.
   *
   * @throws {SeveralFilesError} if the checkpoint has several files: see `loadAll`
   * @throws {NoCheckpointError} if there is no checkpoint
   * @throws {CorruptCheckpointError} if the checkpoint is damaged
   * @throws {OutOfMemoryError} if it needs more than limitBytes
   * @throws {SyscallError} if it cannot be read
   */
  static async loadFrom(
    directory: string,
    given?: Nullable<LoadOptions> | null,
  ): Promise<MemoryFile> {
    const place = resolvePlace(directory);
    const options = resolveLoadOptions(place, readOptions<LoadOptions>(given));
    checkLoadOptions(options);
    const { core, userData, origin, finish } = await restoreFile(place, options);
    const file = new MemoryFile(core, userData);
    file.#place = place;
    file.#origin = origin;
    await finish();
    return file;
  }

  /**
   * Replaces the file's memory by the newest checkpoint of the place from which it was loaded. For
   * programs that only read: unchanged pages are copied in memory, and only the others are loaded.
   * Earlier views then have length 0, as after `destroy`, and attached threads must attach again.
   * Resolves with false, and changes nothing, if there is no newer checkpoint. Writes of the
   * program since the load are lost, except in pages that did not change between the checkpoints.
   *
   * @throws {UnsupportedError} if `loadFrom` did not restore the file, or with the option `path`
   * @throws as `loadFrom`; the file is unchanged then
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
    const { refreshCore } = await importRefresh();
    const before = this.#core;
    const refreshed = await refreshCore(before, origin);
    if (refreshed === undefined) return false;
    const core = refreshed.take();
    this.#core = core;
    replaceCore(this, core);
    this.#origin = refreshed.origin;
    this.#userData = refreshed.origin.manifest.files[0]!.userData;
    watchForgotten(this, core);
    before.destroy();
    return true;
  }

  /** True while a restore is under way in the background. */
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

  /** The progress of the restore; all zeros for a file that was not restored. */
  loadStats(): LoadStats {
    this.#core.requireLive("loadStats()");
    const stats = this.#core.loader?.stats() ?? NOTHING_LOADED;
    return { ...stats, ...workingSetStats(this.#core) };
  }

  /**
   * Ends the recording of the working set: later use is not part of the program's start. Without
   * this call, recording ends after 300 ms in which the program awaits or views nothing new, and
   * after 10 s at most.
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
   * Resolves when the range is loaded. The range is loaded before the background pass continues.
   * Without a range, it resolves when all is loaded.
   *
   * @throws {CorruptCheckpointError} {SyscallError} if a page of it cannot be loaded
   * @throws the signal's reason; the load itself continues
   */
  async awaitLoad(range?: RangeLike | null, options?: WaitOptions | null): Promise<void> {
    await awaitLoad(this.#core, range, options);
  }

  /**
   * Loads the failed pages of the range again (without a range: of the file), and continues a load
   * that its signal had aborted. Resolves and rejects as `awaitLoad`. Without this call, every
   * waiter gets the failure again.
   */
  async retryLoad(range?: RangeLike | null, options?: WaitOptions | null): Promise<void> {
    await retryLoad(this.#core, range, options);
  }

  /** As `awaitLoad`, but blocks this thread: for Workers and for start-up code. */
  awaitLoadSync(range?: RangeLike | null): void {
    awaitLoadSync(this.#core, range);
  }

  /**
   * Ends the file for all its threads. Every view of this thread has length 0 when this returns,
   * and every view of another thread at that thread's next call or turn of the event loop. A view
   * that I/O in flight uses (a read or write, zlib) keeps its length until the I/O ends, and has
   * length 0 within 100 ms of that. Memory is unmapped when no load, save or such view uses it. A
   * second call has no effect.
   */
  destroy(): void {
    this.#core.destroy();
  }

  [Symbol.dispose](): void {
    this.destroy();
  }
}
