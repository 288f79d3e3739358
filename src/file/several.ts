/**
 * Several MemoryFiles in one checkpoint, each found by its id: gVisor's AsyncPagesFileSave and
 * AsyncPagesFileLoad, in the same format that `saveTo` and `loadFrom` use.
 *
 * Files load one after another, in the order in which they were saved: a file's background pass
 * begins when the one before it has ended. A range of any file that a thread waits for is loaded
 * first.
 */
import { checkFunction, quote, showValue } from "../../ffi/index.ts";
import { openCheckpointAt } from "../restore/open-place.ts";
import { encodeName, LIMITS } from "../checkpoint/limits.ts";
import { recordLoad, recordSave } from "../metrics/record.ts";
import { type SaveFile, type SaveOptions, type SaveReport, saveFiles } from "../save/save.ts";
import type { LoadStats } from "../load/load-stats.ts";
import type { Loader } from "../load/loader.ts";
import { coreOf, fileOver, MemoryFile } from "./memory-file.ts";
import {
  checkLoadOptions,
  checkWatchers,
  copyUserData,
  type LoadOptions,
  type MemoryFileOptions,
  type Nullable,
  readOptions,
} from "../core/options.ts";
import { cutName } from "../core/check-options.ts";
import { resolvePlace } from "../remote/place.ts";
import { resolveLoadOptions } from "./restore-file.ts";
import { restoreCheckpoint } from "../restore/native.ts";
import type { RestoreOptions } from "../restore/restore.ts";

export interface SaveAllOptions extends SaveOptions {
  /** Stored for the whole checkpoint: `userData` of the result of `loadAll`. */
  readonly userData?: SaveOptions["userData"];
  /** Stored for single files, by id: `userData` of each file that `loadAll` returns. */
  readonly fileUserData?:
    | Readonly<Record<string, Uint8Array | (() => Uint8Array)>>
    | ReadonlyMap<string, Uint8Array | (() => Uint8Array)>
    | undefined;
}

export interface LoadAllOptions
  extends Omit<LoadOptions, "onProgress" | keyof MemoryFileOptions>,
    Omit<MemoryFileOptions, "name" | "path"> {
  /**
   * Called from time to time, and once when all is loaded. If it throws, the load of all files
   * ends.
   */
  readonly onProgress?: ((progress: LoadAllProgress) => void) | undefined;
  /**
   * Options of single files, which take precedence over those for all. Default for `name`: the id.
   */
  readonly fileOptions?:
    | ((id: string) => Nullable<MemoryFileOptions> | null | undefined)
    | undefined;
}

/** The progress of all files that are not destroyed, together. Bytes, as in LoadStats. */
export type LoadAllProgress = Pick<
  LoadStats,
  "isLoading" | "totalBytes" | "loadedBytes" | "failedBytes"
>;

/** The files of a checkpoint, by id, in the order in which they were saved. */
export class CheckpointFiles extends Map<string, MemoryFile> implements Disposable {
  /** The user data that the program stored for the whole checkpoint. */
  readonly userData: Uint8Array | null;

  constructor(files: Iterable<readonly [string, MemoryFile]>, userData: Uint8Array | null) {
    super(files);
    this.userData = userData;
  }

  /** Destroys each file. Files that are destroyed already are left out. */
  [Symbol.dispose](): void {
    for (const file of this.values()) file.destroy();
  }
}

/**
 * Writes one checkpoint of several files into `directory`, atomically: all or none, as
 * `MemoryFile.saveTo` writes one file. Waits until each file is loaded. The references of all files
 * are those of one turn of the event loop.
 *
 * @param files by id: 1 to 4096 of them, each id 1 to 255 bytes of UTF-8 without NUL. They load in
 * this order.
 * @throws {TypeError} {RangeError} for a bad id, a file that appears twice, or user data for a file
 * that is not given
 * @throws {CheckpointBusyError} if a save into the directory is under way
 * @throws {DestroyedError} {SyscallError} or the signal's reason; the previous checkpoint is intact
 * then
 */
export async function saveAll(
  directory: string,
  files: Readonly<Record<string, MemoryFile>> | ReadonlyMap<string, MemoryFile>,
  options?: Nullable<SaveAllOptions> | null,
): Promise<SaveReport> {
  const place = resolvePlace(directory);
  const { fileUserData = {}, ...given } = readOptions<SaveAllOptions>(options);
  checkWatchers(given);
  const userData = copyUserData("userData", given.userData);
  const listed = listFiles(files, entriesOf("fileUserData", fileUserData));
  const save = saveFiles(listed, userData, place, given);
  return await recordSave(
    listed.map(({ core }) => core),
    place,
    save,
  );
}

/** The entries of a collection by id, in order. `name` is the argument's. @throws {TypeError} */
export function entriesOf<T>(
  name: string,
  collection: Readonly<Record<string, T>> | ReadonlyMap<string, T>,
): [string, T][] {
  if (collection === null || typeof collection !== "object")
    throw new TypeError(
      `Expected ${name} to be an object or a Map by id, got ${showValue(collection)}`,
    );
  return collection instanceof Map ? [...collection] : Object.entries(collection);
}

function listFiles(
  files: Readonly<Record<string, MemoryFile>> | ReadonlyMap<string, MemoryFile>,
  userData: readonly [string, Uint8Array | (() => Uint8Array)][],
): SaveFile[] {
  const entries = entriesOf("files", files);
  if (entries.length < 1 || entries.length > LIMITS.files) {
    throw new RangeError(`Expected 1 to ${LIMITS.files} files, got ${entries.length}`);
  }
  const userDataOf = new Map(userData);
  const seen = new Map<unknown, string>();
  const list = entries.map(([id, file]): SaveFile => {
    checkId(id);
    if (!(file instanceof MemoryFile))
      throw new TypeError(`Expected ${quote(id)} to be a MemoryFile, got ${showValue(file)}`);
    const core = coreOf(file);
    core.requireLive("saveAll()");
    const other = seen.get(core);
    if (other !== undefined)
      throw new TypeError(
        `Expected each file once, got one file as ${quote(other)} and ${quote(id)}`,
      );
    seen.set(core, id);
    return {
      name: id,
      core,
      userData: copyUserData(`fileUserData[${quote(id)}]`, userDataOf.get(id)),
    };
  });
  const stray = userData.find(([id]) => !list.some(({ name }) => name === id));
  if (stray !== undefined)
    throw new RangeError(
      `Expected fileUserData of files that are saved, got ${showValue(stray[0])}`,
    );
  return list;
}

function checkId(id: string): void {
  if (typeof id !== "string")
    throw new TypeError(`Expected ids to be strings, got ${showValue(id)}`);
  if (encodeName(id) === undefined) {
    throw new RangeError(
      `Expected an id of 1 to ${LIMITS.nameBytes} bytes of UTF-8 without NUL, got ${quote(id)}`,
    );
  }
}

/**
 * Restores all files of a checkpoint. The file of a checkpoint that `saveTo` wrote has the id
 * "main". With `background` it returns as soon as the metadata is read. The caller destroys each
 * file; the others continue.
 *
 * @throws {CorruptCheckpointError} {OutOfMemoryError} {SyscallError} as `MemoryFile.loadFrom`; no
 * file is left then
 */
export async function loadAll(
  directory: string,
  given?: Nullable<LoadAllOptions> | null,
): Promise<CheckpointFiles> {
  const place = resolvePlace(directory);
  const options = resolveLoadOptions(place, readOptions<LoadAllOptions>(given));
  checkLoadOptions(options);
  if (options.fileOptions != null) checkFunction("fileOptions", options.fileOptions);
  const opening = openCheckpointAt(place, options);
  const checkpoint = opening instanceof Promise ? await opening : opening;
  const { files, userData } = checkpoint.manifest;
  const restored = restoreCheckpoint(checkpoint, optionsById(options), restoreOptions(options));
  for (const core of restored.cores) void recordLoad(core);
  const named = files.map(
    (file, i) => [file.name, fileOver(restored.cores[i]!, file.userData)] as const,
  );
  await restored.finish();
  return new CheckpointFiles(named, userData);
}

/**
 * The options of each file: its own take precedence over those for all. Default for `name`: the id.
 */
export function optionsById(options: LoadAllOptions): (id: string) => MemoryFileOptions {
  const { fileOptions, ...common } = options;
  return (id) => ({
    ...common,
    name: id === "" ? undefined : cutName(id),
    ...readOptions<MemoryFileOptions>(fileOptions?.(id)),
  });
}

/** The options for all files. Their progress is that of all files together. */
export function restoreOptions(options: LoadAllOptions): RestoreOptions {
  const { onProgress } = options;
  return { ...options, report: onProgress && ((loaders) => onProgress(sumUp(loaders))) };
}

function sumUp(loaders: readonly Loader[]): LoadAllProgress {
  const sum = { isLoading: false, totalBytes: 0, loadedBytes: 0, failedBytes: 0 };
  for (const loader of loaders) {
    const { isLoading, totalBytes, loadedBytes, failedBytes } = loader.stats();
    sum.isLoading ||= isLoading;
    sum.totalBytes += totalBytes;
    sum.loadedBytes += loadedBytes;
    sum.failedBytes += failedBytes;
  }
  return sum;
}
