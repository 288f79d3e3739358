/**
 * A directory in which a checkpoint is written: locked, with files made under names that no load
 * looks for, synced, and renamed. Each format decides which names and in what order
 * (save/directory-sink.ts, gvisor/directory.ts). The directory itself is the lock file (flock): the
 * lock ends with the process that held it.
 */
import { existsSync } from "node:fs";
import { dirname, resolve } from "node:path";
import {
  addressOf,
  closeFile,
  closeInBackground,
  listDirectory,
  makeDirectory,
  O_CREAT,
  O_DIRECTORY,
  O_EXCL,
  O_NOFOLLOW,
  O_NONBLOCK,
  O_PATH,
  O_RDONLY,
  O_WRONLY,
  openAt,
  openFile,
  quote,
  readAt,
  renameAt,
  showValue,
  SyscallError,
  syncFile,
  unlinkAt,
  writeAt,
} from "../../ffi/index.ts";
import { type FileLock, lockFile } from "../control/file-lock.ts";
import { CheckpointBusyError } from "../errors/errors.ts";

/**
 * A directory's absolute path: of the call that it is given to, not of some later turn.
 * @throws {TypeError}
 */
export function absolutePath(directory: string): string {
  if (typeof directory !== "string")
    throw new TypeError(`Expected directory to be a string, got ${showValue(directory)}`);
  if (directory === "" || directory.includes("\0"))
    throw new TypeError(
      `Expected directory to be a path without NUL characters, got ${quote(directory)}`,
    );
  return resolve(directory);
}

export class StagingDirectory {
  readonly path: string;
  readonly fd: number;
  private readonly lock: FileLock;
  /** Directories in which we made one whose name is not synced yet. */
  private readonly unsynced: string[];

  /**
   * `path` is absolute. @throws {CheckpointBusyError} if another save has the directory
   * @throws {SyscallError}
   */
  constructor(path: string) {
    this.unsynced = makeDirectories(path);
    this.path = path;
    this.fd = openFile(path, O_RDONLY | O_DIRECTORY);
    try {
      const lock = lockFile(this.fd);
      if (lock === null) throw new CheckpointBusyError(path);
      this.lock = lock;
    } catch (error) {
      closeFile(this.fd);
      throw error;
    }
  }

  pathOf(name: string): string {
    return `${this.path}/${name}`;
  }

  list(): string[] {
    return listDirectory(this.fd);
  }

  /** A new file, open for writing: never one that was there, nor one behind a symbolic link. */
  create(name: string): number {
    return openAt(this.fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
  }

  /** Writes a new file of these parts, and syncs it. */
  async write(name: string, parts: readonly Uint8Array[]): Promise<void> {
    const fd = this.create(name);
    try {
      let offset = 0;
      for (const bytes of parts) {
        writeBytes(fd, bytes, offset, this.pathOf(name));
        offset += bytes.byteLength;
      }
      await this.syncFile(fd, name);
    } finally {
      closeFile(fd);
    }
  }

  async syncFile(fd: number, name: string): Promise<void> {
    await syncFile(fd, this.pathOf(name));
  }

  /** Makes the renames and removals so far permanent, and the directory's own name. */
  async sync(): Promise<void> {
    await syncDirectoryFd(this.fd, this.path);
    for (let parent = this.unsynced.pop(); parent !== undefined; parent = this.unsynced.pop())
      await syncDirectory(parent);
  }

  rename(from: string, to: string): void {
    renameAt(this.fd, from, to);
  }

  /** Renames over a file that may be large: its blocks are freed in a thread of the runtime. */
  async replace(from: string, to: string): Promise<void> {
    await this.freeingInBackground(to, () => this.rename(from, to));
  }

  /** Removes a file that may be large, as `replace` does. */
  async remove(name: string): Promise<void> {
    await this.freeingInBackground(name, () => this.removeIfExists(name));
  }

  /**
   * A file's blocks are freed when it is closed last. In the rename or unlink itself that would
   * stop this thread for 0.15 s/GiB, so the file is kept open and closed in the background.
   */
  private async freeingInBackground(name: string, step: () => void): Promise<void> {
    const old = openIfExists(this.fd, name, O_PATH | O_NOFOLLOW);
    try {
      step();
    } finally {
      if (old !== undefined) await closeInBackground(old);
    }
  }

  removeIfExists(name: string): void {
    try {
      unlinkAt(this.fd, name);
    } catch (error) {
      if (!(error instanceof SyscallError && error.code === "ENOENT")) throw error;
    }
  }

  close(): void {
    this.lock.close();
  }
}

/**
 * Takes all steps, also after one has failed. @throws the failure, or an AggregateError of several
 */
export function closeAll(steps: readonly (() => unknown)[]): void {
  const failures: unknown[] = [];
  for (const step of steps) {
    try {
      step();
    } catch (error) {
      failures.push(error);
    }
  }
  throwAll(failures);
}

/** Does the work, then closes. @throws the failure, or an AggregateError of both */
export async function closing<T>(
  writer: { close(): void | Promise<void> },
  work: () => Promise<T>,
): Promise<T> {
  const failures: unknown[] = [];
  let result: T | undefined;
  try {
    result = await work();
  } catch (error) {
    failures.push(error);
  }
  try {
    await writer.close();
  } catch (error) {
    failures.push(error);
  }
  throwAll(failures);
  return result as T;
}

function throwAll(failures: readonly unknown[]): void {
  if (failures.length === 1) throw failures[0];
  if (failures.length > 1) throw new AggregateError(failures, "Several steps failed");
}

/** @throws {SyscallError} with `path` */
export function writeBytes(fd: number, bytes: Uint8Array, offset: number, path: string): void {
  if (bytes.byteLength === 0) return;
  const written = writeAt(fd, addressOf(bytes), bytes.byteLength, offset);
  if (written < 0) throw new SyscallError("pwrite", -written, path);
}

/** Makes a directory where there is none, and those above it. Returns in which directories. */
function makeDirectories(path: string): string[] {
  let above: string[] = [];
  try {
    return makeIfAbsent(path) ? [dirname(path)] : [];
  } catch (error) {
    if (!(error instanceof SyscallError && error.code === "ENOENT") || dirname(path) === path)
      throw error;
    above = makeDirectories(dirname(path));
  }
  return makeIfAbsent(path) ? [...above, dirname(path)] : above;
}

/** True if it made the directory; false if something has that name already. */
function makeIfAbsent(path: string): boolean {
  try {
    makeDirectory(path, 0o700);
    return true;
  } catch (error) {
    if (!(error instanceof SyscallError && error.code === "EEXIST")) throw error;
    if (!existsSync(path))
      throw new SyscallError("mkdir", -error.errno, path, "it is a symbolic link to nothing");
    return false;
  }
}

async function syncDirectory(path: string): Promise<void> {
  let fd: number;
  try {
    fd = openFile(path, O_RDONLY | O_DIRECTORY);
  } catch (error) {
    // A user that may make names in a directory but not read it cannot sync it either.
    if (error instanceof SyscallError && error.code === "EACCES") return;
    throw error;
  }
  try {
    await syncDirectoryFd(fd, path);
  } finally {
    closeFile(fd);
  }
}

/** What file systems answer that cannot sync a directory, as some of FUSE and of networks. */
const CANNOT_SYNC: readonly string[] = ["EINVAL", "ENOSYS", "EPERM", "EBADF", "ENOTSUP", "ENODEV"];

/** Without the sync a power failure may take the renames back; the contents are synced anyway. */
async function syncDirectoryFd(fd: number, path: string): Promise<void> {
  try {
    await syncFile(fd, path);
  } catch (error) {
    if (!(error instanceof SyscallError && CANNOT_SYNC.includes(error.code))) throw error;
  }
}

/**
 * Opens a file of a directory, for reading unless `flags` say otherwise; undefined if there is
 * none. A FIFO in its place does not block: O_NONBLOCK means nothing else for files.
 */
export function openIfExists(
  directoryFd: number,
  name: string,
  flags = O_RDONLY,
): number | undefined {
  try {
    return openAt(directoryFd, name, flags | O_NONBLOCK);
  } catch (error) {
    if (error instanceof SyscallError && error.code === "ENOENT") return undefined;
    throw error;
  }
}

/**
 * Reads [offset, offset + lengthBytes) of a file; less if it ends before. @throws {SyscallError}
 */
export function readBytes(
  fd: number,
  offset: number,
  lengthBytes: number,
  path: string,
): Uint8Array<ArrayBuffer> {
  return readInto(new Uint8Array(new ArrayBuffer(lengthBytes)), fd, offset, path);
}

/**
 * Fills `bytes` from `offset` on; returns what it filled if the file ends before. @throws
 * {SyscallError}
 */
export function readInto<T extends ArrayBufferLike>(
  bytes: Uint8Array<T>,
  fd: number,
  offset: number,
  path: string,
): Uint8Array<T> {
  const moved = bytes.byteLength === 0 ? 0 : readAt(fd, addressOf(bytes), bytes.byteLength, offset);
  if (moved < 0) throw new SyscallError("pread", -moved, path);
  return bytes.subarray(0, moved);
}
