/**
 * A directory in which a checkpoint is written. It is locked; files are made under names that no
 * load looks for, synced, and renamed. Each format chooses the names and their order
 * (save/directory-sink.ts, gvisor/directory.ts).
 */
import { resolve } from "node:path";
import {
  addressOf,
  closeFile,
  closeInBackground,
  listDirectory,
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
import { DEFAULT_MODE, DirectoryLock, type KeptLock, makeDirectories } from "./directory-lock.ts";

/**
 * A directory's absolute path at the time of the call, because the working directory may change
 * later.
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

export interface DirectoryOptions {
  /** The lock, if the caller keeps it. */
  readonly kept?: KeptLock | undefined;
  /** Permissions of new files, less the umask. Default: DEFAULT_MODE. */
  readonly mode?: number | undefined;
}

export class StagingDirectory {
  readonly path: string;
  readonly fd: number;
  private readonly lock: DirectoryLock;
  private readonly isKept: boolean;
  private readonly mode: number;
  /** Directories in which this save made a directory whose name is not synced yet. */
  private readonly unsynced: string[];

  /**
   * @param path absolute
   * @throws {CheckpointBusyError} if another writer has the directory
   * @throws {SyscallError}
   */
  constructor(path: string, { kept, mode = DEFAULT_MODE }: DirectoryOptions = {}) {
    this.unsynced = makeDirectories(path, mode);
    this.path = path;
    this.mode = mode;
    this.isKept = kept !== undefined;
    this.lock = kept?.current() ?? new DirectoryLock(path);
    this.fd = this.lock.fd;
  }

  pathOf(name: string): string {
    return `${this.path}/${name}`;
  }

  list(): string[] {
    return listDirectory(this.fd);
  }

  /** A new file, open for writing. Never an existing file, nor one behind a symbolic link. */
  create(name: string): number {
    return openAt(this.fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, this.mode);
  }

  /** Writes a new file from these parts, and syncs it. */
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

  /** Makes earlier renames and removals permanent, and the directory's own name. */
  async sync(): Promise<void> {
    await syncDirectoryFd(this.fd, this.path);
    for (let parent = this.unsynced.pop(); parent !== undefined; parent = this.unsynced.pop())
      await syncDirectory(parent);
  }

  rename(from: string, to: string): void {
    renameAt(this.fd, from, to);
  }

  /** Renames over a file that may be large. A thread of the runtime frees the old file's blocks. */
  async replace(from: string, to: string): Promise<void> {
    await this.freeingInBackground(to, () => this.rename(from, to));
  }

  /** Removes a file that may be large, as `replace` does. */
  async remove(name: string): Promise<void> {
    await this.freeingInBackground(name, () => this.removeIfExists(name));
  }

  /**
   * Keeps the file open during `step` and closes it in the background. The last close frees a
   * file's blocks; in the rename or unlink itself that would stop this thread for 0.15 s/GiB.
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
    if (!this.isKept) this.lock.close();
  }
}

/**
 * Runs all steps, also after one has failed.
 * @throws the failure, or an AggregateError of several
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

async function syncDirectory(path: string): Promise<void> {
  let fd: number;
  try {
    fd = openFile(path, O_RDONLY | O_DIRECTORY);
  } catch (error) {
    // A user that may create names in a directory, but not read it, cannot sync it either.
    if (error instanceof SyscallError && error.code === "EACCES") return;
    throw error;
  }
  try {
    await syncDirectoryFd(fd, path);
  } finally {
    closeFile(fd);
  }
}

/**
 * Errors of file systems that cannot sync a directory, such as some FUSE and network file systems.
 */
const CANNOT_SYNC: readonly string[] = ["EINVAL", "ENOSYS", "EPERM", "EBADF", "ENOTSUP", "ENODEV"];

/** Without this sync a power failure may undo the renames. The contents are synced in any case. */
async function syncDirectoryFd(fd: number, path: string): Promise<void> {
  try {
    await syncFile(fd, path);
  } catch (error) {
    if (!(error instanceof SyscallError && CANNOT_SYNC.includes(error.code))) throw error;
  }
}

/**
 * Opens a file of a directory, for reading unless `flags` say otherwise; undefined if there is
 * none. With O_NONBLOCK, which has no other effect on files, a FIFO of that name does not block.
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
 * Reads [offset, offset + lengthBytes) of a file; less if the file ends before. @throws
 * {SyscallError}
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
 * Fills `bytes` from `offset` on. Returns the filled part, which is shorter if the file ends
 * before.
 * @throws {SyscallError}
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
