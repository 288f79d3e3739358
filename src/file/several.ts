/**
 * Several MemoryFiles in one checkpoint, each found again by its id: gVisor's AsyncPagesFileSave
 * and AsyncPagesFileLoad, in the one format that `saveTo` and `loadFrom` read and write too. One
 * pages file holds the contents of all.
 *
 * Loading goes file by file, in the order in which they were saved: a file's background pass begins
 * when the one before it has ended. A range that somebody waits for comes before all of that,
 * whichever file it is of.
 */
import { openCheckpoint } from "../checkpoint/directory.ts";
import { encodeName, LIMITS } from "../checkpoint/limits.ts";
import { recordLoad, recordSave } from "../metrics/record.ts";
import { type SaveFile, type SaveOptions, type SaveReport, saveFiles } from "../save/save.ts";
import type { LoadStats } from "../load/loader.ts";
import { coreOf, fileOver, MemoryFile } from "./memory-file.ts";
import {
  checkQueue,
  checkWatchers,
  copyUserData,
  type LoadOptions,
  type MemoryFileOptions,
} from "../core/options.ts";
import { restoreCores } from "../restore/restore.ts";

const PROGRESS_INTERVAL_MS = 50;

export interface SaveAllOptions extends SaveOptions {
  /** Stored for the checkpoint as a whole: `userData` of what `loadAll` gives. */
  readonly userData?: Uint8Array | undefined;
  /** Stored for single files, by id: `userData` of each file that `loadAll` gives. */
  readonly fileUserData?:
    | Readonly<Record<string, Uint8Array>>
    | ReadonlyMap<string, Uint8Array>
    | undefined;
}

export interface LoadAllOptions
  extends Pick<LoadOptions, "background" | "signal" | "queue">,
    Omit<MemoryFileOptions, "name" | "path"> {
  /**
   * Called now and then, and once when all is loaded. What it throws ends the load of all files.
   */
  readonly onProgress?: ((progress: LoadAllProgress) => void) | undefined;
  /** Options of single files, which go before those for all. Default for `name`: the id. */
  readonly fileOptions?: ((id: string) => MemoryFileOptions) | undefined;
}

/** How far the files that are not destroyed are, all together. Bytes, as in LoadStats. */
export type LoadAllProgress = Pick<
  LoadStats,
  "isLoading" | "totalBytes" | "loadedBytes" | "failedBytes"
>;

/** The files of a checkpoint, by id, in the order in which they were saved. */
export class CheckpointFiles extends Map<string, MemoryFile> implements Disposable {
  /** What the program stored for the checkpoint as a whole. */
  readonly userData: Uint8Array | null;

  constructor(files: Iterable<readonly [string, MemoryFile]>, userData: Uint8Array | null) {
    super(files);
    this.userData = userData;
  }

  /** Destroys each file; those that are destroyed already stay so. */
  [Symbol.dispose](): void {
    for (const file of this.values()) file.destroy();
  }
}

/**
 * Writes one checkpoint of several files into `directory`, as `MemoryFile.saveTo` does of one:
 * atomically, all or none. Waits until each is loaded. Which pages have references is taken of all
 * files in one turn of the event loop.
 *
 * @param files by id: 1 to 4096 of them, each id 1 to 255 bytes of UTF-8 without NUL. Loading
 * follows their order.
 * @throws {TypeError} {RangeError} for a bad id, a file that stands twice, or user data for a file
 * that is not there
 * @throws {CheckpointBusyError} if a save into the directory is under way
 * @throws {DestroyedError} {SyscallError} the signal's reason; the previous checkpoint is intact
 * then
 */
export async function saveAll(
  directory: string,
  files: Readonly<Record<string, MemoryFile>> | ReadonlyMap<string, MemoryFile>,
  options: SaveAllOptions = {},
): Promise<SaveReport> {
  checkWatchers(options);
  const userData = copyUserData("userData", options.userData) ?? undefined;
  const listed = listFiles(files, entriesOf(options.fileUserData ?? {}));
  const save = saveFiles(listed, directory, { ...options, userData });
  return await recordSave(
    listed.map(({ core }) => core),
    directory,
    save,
  );
}

/** What is given by id, in order. @throws {TypeError} */
export function entriesOf<T>(
  collection: Readonly<Record<string, T>> | ReadonlyMap<string, T>,
): [string, T][] {
  if (collection === null || typeof collection !== "object") {
    throw new TypeError(`Expected an object or a Map by id, got ${String(collection)}`);
  }
  return collection instanceof Map ? [...collection] : Object.entries(collection);
}

function listFiles(
  files: Readonly<Record<string, MemoryFile>> | ReadonlyMap<string, MemoryFile>,
  userData: readonly [string, Uint8Array][],
): SaveFile[] {
  const entries = entriesOf(files);
  if (entries.length < 1 || entries.length > LIMITS.files) {
    throw new RangeError(`Expected 1 to ${LIMITS.files} files, got ${entries.length}`);
  }
  const userDataOf = new Map(userData);
  const seen = new Map<unknown, string>();
  const list = entries.map(([id, file]): SaveFile => {
    checkId(id);
    if (!(file instanceof MemoryFile))
      throw new TypeError(`Expected ${JSON.stringify(id)} to be a MemoryFile, got ${String(file)}`);
    const core = coreOf(file);
    core.requireLive("saveAll()");
    const other = seen.get(core);
    if (other !== undefined)
      throw new TypeError(
        `Expected each file once, ${JSON.stringify(other)} is ${JSON.stringify(id)} too`,
      );
    seen.set(core, id);
    return {
      name: id,
      core,
      userData: copyUserData(`fileUserData[${JSON.stringify(id)}]`, userDataOf.get(id)),
    };
  });
  const stray = userData.find(([id]) => !list.some(({ name }) => name === id));
  if (stray !== undefined)
    throw new RangeError(
      `Expected fileUserData of files that are saved, got ${JSON.stringify(stray[0])}`,
    );
  return list;
}

function checkId(id: string): void {
  if (typeof id !== "string") throw new TypeError(`Expected ids to be strings, got ${String(id)}`);
  if (encodeName(id) === undefined) {
    throw new RangeError(
      `Expected an id of 1 to ${LIMITS.nameBytes} bytes of UTF-8 without NUL, got ${JSON.stringify(id)}`,
    );
  }
}

/**
 * Restores all files of a checkpoint, also of one that `saveTo` wrote (its file's id is "main").
 * With `background` it returns as soon as the metadata stands. Each file is the caller's to
 * destroy; what is left of the others goes on.
 *
 * @throws {CorruptCheckpointError} {OutOfMemoryError} {SyscallError} as `MemoryFile.loadFrom`; no
 * file is left then
 */
export async function loadAll(
  directory: string,
  options: LoadAllOptions = {},
): Promise<CheckpointFiles> {
  checkWatchers(options);
  checkQueue(options.queue);
  const checkpoint = openCheckpoint(directory);
  const { files, userData } = checkpoint.manifest;
  return await openFiles(options, userData, (optionsOf) => {
    const cores = restoreCores(checkpoint, optionsOf);
    for (const core of cores) void recordLoad(core);
    return files.map(({ name, userData }, i) => [name, fileOver(cores[i]!, userData)]);
  });
}

/**
 * What a restore of several files has in common between formats: `restore` makes them, in order,
 * each with the options of its id, and leaves none if it throws.
 */
export async function openFiles(
  options: LoadAllOptions,
  userData: Uint8Array | null,
  restore: (optionsOf: (id: string) => LoadOptions) => Iterable<readonly [string, MemoryFile]>,
): Promise<CheckpointFiles> {
  const progress = new SharedProgress(options);
  const { onProgress, signal } = progress;
  const { fileOptions, ...common } = options;
  const optionsOf = (id: string): LoadOptions => ({
    ...common,
    name: id || undefined,
    ...fileOptions?.(id),
    onProgress,
    signal,
  });
  const files = new CheckpointFiles(restore(optionsOf), userData);
  progress.files = [...files.values()];
  if (options.background === true) return files;
  try {
    for (const file of files.values()) await file.awaitLoad(undefined, { signal });
    for (const file of files.values()) coreOf(file).loader?.report();
    signal?.throwIfAborted();
    return files;
  } catch (error) {
    files[Symbol.dispose]();
    throw error;
  }
}

/** Sums up the files' progress, for one callback whose failure ends the load of all. */
class SharedProgress {
  files: readonly MemoryFile[] = [];
  readonly onProgress: (() => void) | undefined;
  readonly signal: AbortSignal | undefined;
  private reportedAt = 0;
  private isDone = false;

  constructor({ onProgress, signal }: LoadAllOptions) {
    if (onProgress === undefined) {
      this.signal = signal;
      return;
    }
    const failure = new AbortController();
    this.signal = signal === undefined ? failure.signal : AbortSignal.any([signal, failure.signal]);
    this.onProgress = () => {
      const progress = this.sum();
      // Each file reports by a clock of its own.
      const now = performance.now();
      if (this.isDone || (progress.isLoading && now < this.reportedAt + PROGRESS_INTERVAL_MS))
        return;
      this.reportedAt = now;
      this.isDone = !progress.isLoading;
      try {
        onProgress(progress);
      } catch (error) {
        failure.abort(error);
      }
    };
  }

  private sum(): LoadAllProgress {
    const all = this.files
      .filter((file) => !coreOf(file).isDetached)
      .map((file) => file.loadStats());
    const sum = (key: "totalBytes" | "loadedBytes" | "failedBytes") =>
      all.reduce((total, stats) => total + stats[key], 0);
    return {
      isLoading: all.some(({ isLoading }) => isLoading),
      totalBytes: sum("totalBytes"),
      loadedBytes: sum("loadedBytes"),
      failedBytes: sum("failedBytes"),
    };
  }
}
