/**
 * Locks on open files (flock(2)) that end with the descriptor. A descriptor outlives the Worker
 * that opened it, so each lock is recorded as a holding: another thread then frees the lock of a
 * dead one.
 */
import { closeFile, isRefused, SyscallError, tryLockFile } from "../../ffi/index.ts";
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
  if (!tryLock(fd)) return null;
  const record = hold({ fd });
  return {
    close: () => {
      letGo(record);
      closeFile(fd);
    },
  };
}

function isLocked(fd: number): boolean {
  try {
    return tryLockFile(fd);
  } catch (error) {
    if (error instanceof SyscallError && (isRefused(error) || error.code === "ENOLCK")) return true;
    throw error;
  }
}
