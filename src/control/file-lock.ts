/**
 * Locks on open files (flock(2)) that end with the descriptor. A descriptor outlives the Worker
 * that opened it, so each lock is recorded as a holding: another thread then frees the lock of a
 * dead one.
 */
import { closeFile, isRefused, SyscallError, tryLockFile, unlockFile } from "../../ffi/index.ts";
import { freeHoldingsOfDead, hold, letGo } from "./holdings.ts";

export interface FileLock {
  /** Closes the file, which ends the lock. */
  close(): void;
}

/**
 * As `lockFile`, for a file that the caller records as a holding. Returns false if it is locked.
 */
export function tryLock(fd: number): boolean {
  if (isLocked(fd)) return true;
  freeHoldingsOfDead();
  return isLocked(fd);
}

/**
 * Locks an open file. Returns null if another descriptor has the lock, in this or another process.
 * If the file system or a filter refuses locks, the file is used without one.
 *
 * @throws {SyscallError}
 */
export function lockFile(fd: number): FileLock | null {
  // A thread may end between any two steps. It must not leave a lock without a record, nor a record
  // of a descriptor that is closed.
  const record = hold({ fd });
  let hasLock = false;
  try {
    hasLock = tryLock(fd);
  } finally {
    if (!hasLock) letGo(record);
  }
  if (!hasLock) return null;
  return {
    close: () => {
      unlockFile(fd);
      letGo(record);
      closeFile(fd);
    },
  };
}

/** Network file systems without locks. NFS has none for directories, which are open for reading. */
const CANNOT_LOCK: readonly string[] = ["ENOLCK", "EBADF"];

function isLocked(fd: number): boolean {
  try {
    return tryLockFile(fd);
  } catch (error) {
    if (error instanceof SyscallError && (isRefused(error) || CANNOT_LOCK.includes(error.code)))
      return true;
    throw error;
  }
}
