/**
 * The right to write checkpoints into a directory: a lock (flock) on the directory itself, so it
 * leaves no file, and ends with the process. A save, a copy, an export or the filling of a cache
 * has it for its duration, a store for as long as it is open.
 */
import { existsSync, readFileSync } from "node:fs";
import { dirname } from "node:path";
import {
  closeFile,
  fileStatus,
  makeDirectory,
  O_DIRECTORY,
  O_RDONLY,
  openFile,
  SyscallError,
} from "../../ffi/index.ts";
import { type FileLock, lockFile } from "../control/file-lock.ts";
import { CheckpointBusyError } from "../errors/errors.ts";

export class DirectoryLock {
  readonly fd: number;
  private readonly lock: FileLock;

  /**
   * @param path absolute
   * @throws {CheckpointBusyError} if another writer has the directory
   * @throws {SyscallError}
   */
  constructor(path: string) {
    this.fd = openFile(path, O_RDONLY | O_DIRECTORY);
    try {
      const lock = lockFile(this.fd);
      if (lock === null) throw new CheckpointBusyError(path, findHolder(this.fd));
      this.lock = lock;
    } catch (error) {
      closeFile(this.fd);
      throw error;
    }
  }

  /** True unless the directory was renamed, replaced or removed. */
  isAt(path: string): boolean {
    let fd: number;
    try {
      fd = openFile(path, O_RDONLY | O_DIRECTORY);
    } catch (error) {
      if (error instanceof SyscallError) return false;
      throw error;
    }
    try {
      const [there, own] = [fileStatus(fd), fileStatus(this.fd)];
      return there.inode === own.inode && there.device === own.device;
    } finally {
      closeFile(fd);
    }
  }

  close(): void {
    this.lock.close();
  }
}

/** The lock of a place that its owner keeps between its saves. */
export class KeptLock {
  private readonly path: string;
  private lock: DirectoryLock;

  /** @throws as `DirectoryLock` */
  constructor(path: string) {
    this.path = path;
    this.lock = new DirectoryLock(path);
  }

  /**
   * The lock of the directory that has the path now: another one if it was moved away. @throws as
   * `DirectoryLock`
   */
  current(): DirectoryLock {
    if (!this.lock.isAt(this.path)) {
      const old = this.lock;
      this.lock = new DirectoryLock(this.path);
      old.close();
    }
    return this.lock;
  }

  close(): void {
    this.lock.close();
  }
}

/** The process that has the lock of an open file; undefined if the kernel does not tell. */
function findHolder(fd: number): number | undefined {
  let locks: string;
  try {
    locks = readFileSync("/proc/locks", "latin1");
  } catch {
    return undefined;
  }
  const { inode } = fileStatus(fd);
  // "1: FLOCK  ADVISORY  WRITE 4711 fe:00:131077 0 EOF"
  for (const line of locks.split("\n")) {
    const [, kind, , , pid, file] = line.split(/\s+/);
    if (kind === "FLOCK" && file?.endsWith(`:${inode}`) && Number(pid) > 0) return Number(pid);
  }
  return undefined;
}

/** Permissions of files, unless an option says otherwise. */
export const DEFAULT_MODE = 0o600;

/**
 * Makes a directory and those above it, if missing. Returns the directories that have new entries.
 * @param mode of the files in it: who may read them may search the directories
 * @throws {SyscallError}
 */
export function makeDirectories(path: string, mode: number): string[] {
  let above: string[] = [];
  const ownMode = mode | 0o700 | ((mode & 0o444) >> 2);
  try {
    return makeIfAbsent(path, ownMode) ? [dirname(path)] : [];
  } catch (error) {
    if (!(error instanceof SyscallError && error.code === "ENOENT") || dirname(path) === path)
      throw error;
    above = makeDirectories(dirname(path), mode);
  }
  return makeIfAbsent(path, ownMode) ? [...above, dirname(path)] : above;
}

/** True if it made the directory; false if the name exists already. */
function makeIfAbsent(path: string, mode: number): boolean {
  try {
    makeDirectory(path, mode);
    return true;
  } catch (error) {
    if (!(error instanceof SyscallError && error.code === "EEXIST")) throw error;
    if (!existsSync(path))
      throw new SyscallError("mkdir", -error.errno, path, "it is a symbolic link to nothing");
    return false;
  }
}
