/**
 * A store's directory: its checkpoint, and the lock that keeps other writers out.
 *
 * The checkpoint's userData says where the root is. All else is in the pages.
 */
import { SyscallError } from "../../ffi/index.ts";
import type { LoadOptions } from "../core/options.ts";
import { CorruptStoreError, StoreBusyError } from "../errors/store.ts";
import { DEFAULT_MODE, KeptLock, makeDirectories } from "../checkpoint/directory-lock.ts";
import { MAIN_NAME } from "../checkpoint/format.ts";
import { CheckpointBusyError, NoCheckpointError } from "../errors/errors.ts";
import { coreOf, fileOver, MemoryFile } from "../file/memory-file.ts";
import { createFileFor } from "../file/restore-file.ts";
import { isRemote } from "../remote/place.ts";
import { recordSave } from "../metrics/record.ts";
import { rebindWorkingSet } from "../restore/working-set.ts";
import { type SaveOptions, type SaveReport, saveFiles } from "../save/save.ts";
import { PAGE_SIZE } from "../pages/units.ts";
import { MAGIC_HIGH, MAGIC_LOW, ROOT_BYTES } from "./layout.ts";

const USER_DATA_BYTES = 16;

/**
 * Locks a directory; returns undefined for a remote place. Makes the directory if `create` is true.
 *
 * @throws {StoreBusyError} {SyscallError}
 * @throws {NoCheckpointError} without `create`
 */
export function lockDirectory(
  where: string,
  create: boolean,
  mode = DEFAULT_MODE,
): KeptLock | undefined {
  if (isRemote(where)) return undefined;
  if (create) makeDirectories(where, mode);
  try {
    return new KeptLock(where);
  } catch (error) {
    if (error instanceof CheckpointBusyError) throw new StoreBusyError(where, error.pid);
    if (error instanceof SyscallError && error.code === "ENOENT")
      throw new NoCheckpointError(where, error);
    throw error;
  }
}

/**
 * The checkpoint there, or a new file if there is none and `create` is true.
 *
 * @throws {NoCheckpointError} and as MemoryFile.loadFrom
 */
export async function openStoreFile(
  where: string,
  create: boolean,
  options: LoadOptions,
): Promise<{ readonly file: MemoryFile; readonly isNew: boolean }> {
  const { background = true } = options;
  try {
    return { file: await MemoryFile.loadFrom(where, { ...options, background }), isNew: false };
  } catch (error) {
    if (!create || !(error instanceof NoCheckpointError)) throw error;
    return { file: fileOver(createFileFor(where, options), null), isNew: true };
  }
}

const NOT_OF_A_STORE =
  "The checkpoint is not of a store, but of pages or of another program: " +
  "MemoryFile.loadFrom() and loadAll() load it";

/** Bytes of the file at which the root of a restored store begins. @throws {CorruptStoreError} */
export function rootOf(file: MemoryFile): number {
  const { userData } = file;
  if (userData === null || userData.length !== USER_DATA_BYTES)
    throw new CorruptStoreError(NOT_OF_A_STORE);
  const view = new DataView(userData.buffer, userData.byteOffset, USER_DATA_BYTES);
  const start = view.getFloat64(8, true);
  const isStore = view.getInt32(0, true) === MAGIC_LOW && view.getInt32(4, true) === MAGIC_HIGH;
  const isRange = Number.isInteger(start) && start >= 0 && start % PAGE_SIZE === 0;
  if (!isStore || !isRange || start + ROOT_BYTES > file.totalSizeBytes)
    throw new CorruptStoreError(NOT_OF_A_STORE);
  return start;
}

/**
 * Saves a store whose root is at that byte of the file. Each write to the store is either all in
 * the checkpoint or not at all.
 */
export async function saveStore(
  file: MemoryFile,
  { place, lock, rootStart }: StorePlace,
  options: SaveOptions,
): Promise<SaveReport> {
  const userData = new Uint8Array(USER_DATA_BYTES);
  const view = new DataView(userData.buffer);
  view.setInt32(0, MAGIC_LOW, true);
  view.setInt32(4, MAGIC_HIGH, true);
  view.setFloat64(8, rootStart, true);
  const core = coreOf(file);
  const save = saveFiles([{ name: MAIN_NAME, core, userData }], null, place, options, lock);
  const report = await recordSave([core], place, save);
  rebindWorkingSet(core, report.id);
  return report;
}

/** Where a store is saved. */
export interface StorePlace {
  readonly place: string;
  readonly lock: KeptLock | undefined;
  readonly rootStart: number;
}
