/**
 * A store's files: its checkpoint, and the lock file that keeps a second writer out.
 *
 * The checkpoint's userData says where the root is. All else is in the pages.
 */
import { existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import {
  closeFile,
  O_CLOEXEC,
  O_CREAT,
  O_NOFOLLOW,
  O_RDWR,
  openFile,
  SyscallError,
} from "../../ffi/index.ts";
import { type FileLock, lockFile } from "../control/file-lock.ts";
import type { LoadOptions } from "../core/options.ts";
import { CorruptStoreError, StoreBusyError } from "../errors/store.ts";
import { META } from "../checkpoint/directory.ts";
import { NoCheckpointError } from "../errors/errors.ts";
import { NO_CHECKPOINT, noteCheckpoint } from "../core/known-checkpoints.ts";
import { coreOf, MemoryFile } from "../file/memory-file.ts";
import { isS3Url, parseS3Place } from "../http/s3-options.ts";
import { isRemote } from "../remote/place.ts";
import type { SaveOptions, SaveReport } from "../save/save.ts";
import { PAGE_SIZE } from "../pages/units.ts";
import { MAGIC_HIGH, MAGIC_LOW, ROOT_BYTES } from "./layout.ts";

const LOCK_NAME = "store.lock";
const USER_DATA_BYTES = 16;

/**
 * Locks a directory; returns undefined for a remote place. Makes the directory if `create` is true.
 *
 * @throws {StoreBusyError} {SyscallError}
 * @throws {NoCheckpointError} without `create`
 */
export function lockDirectory(where: string, create: boolean): FileLock | undefined {
  if (isRemote(where)) return undefined;
  if (create) makeDirectory(where);
  else if (!existsSync(join(where, META))) throw new NoCheckpointError(where);
  const fd = openFile(join(where, LOCK_NAME), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o600);
  try {
    const lock = lockFile(fd);
    if (lock === null) throw new StoreBusyError(where);
    return lock;
  } catch (error) {
    closeFile(fd);
    throw error;
  }
}

/** @throws {SyscallError} */
function makeDirectory(path: string): void {
  try {
    mkdirSync(path, { recursive: true });
  } catch (error) {
    const { errno } = error as NodeJS.ErrnoException;
    if (errno === undefined) throw error;
    throw new SyscallError("mkdir", Math.abs(errno), path);
  }
}

/**
 * The checkpoint there, or null if there is none and `create` is true.
 *
 * @throws {NoCheckpointError} and as MemoryFile.loadFrom
 */
export async function openCheckpointFile(
  where: string,
  create: boolean,
  options: LoadOptions,
): Promise<MemoryFile | null> {
  try {
    return await MemoryFile.loadFrom(where, { ...options, background: options.background ?? true });
  } catch (error) {
    if (!create || !(error instanceof NoCheckpointError)) throw error;
    return null;
  }
}

/** The file of a new store, which never replaces a checkpoint that another writer publishes. */
export function createStoreFile(where: string, options: LoadOptions): MemoryFile {
  const file = MemoryFile.create(options);
  if (isS3Url(where)) noteCheckpoint(coreOf(file), parseS3Place(where, options.s3), NO_CHECKPOINT);
  return file;
}

/** Bytes of the file at which the root of a restored store begins. @throws {CorruptStoreError} */
export function rootOf(file: MemoryFile): number {
  const { userData } = file;
  if (userData === null || userData.length !== USER_DATA_BYTES)
    throw new CorruptStoreError("The checkpoint is not of a store");
  const view = new DataView(userData.buffer, userData.byteOffset, USER_DATA_BYTES);
  const start = view.getFloat64(8, true);
  const isStore = view.getInt32(0, true) === MAGIC_LOW && view.getInt32(4, true) === MAGIC_HIGH;
  const isRange = Number.isInteger(start) && start >= 0 && start % PAGE_SIZE === 0;
  if (!isStore || !isRange || start + ROOT_BYTES > file.totalSizeBytes)
    throw new CorruptStoreError("The checkpoint is not of a store");
  return start;
}

/**
 * Saves a store whose root is at that byte of the file. Each write to the store is either all in
 * the checkpoint or not at all.
 */
export function saveStore(
  file: MemoryFile,
  where: string,
  rootStart: number,
  options: SaveOptions,
): Promise<SaveReport> {
  const userData = new Uint8Array(USER_DATA_BYTES);
  const view = new DataView(userData.buffer);
  view.setInt32(0, MAGIC_LOW, true);
  view.setInt32(4, MAGIC_HIGH, true);
  view.setFloat64(8, rootStart, true);
  return file.saveTo(where, { ...options, userData });
}
