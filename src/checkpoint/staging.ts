/**
 * A checkpoint's directory as those who write and read checkpoints see it: locked while one is written, its files made under
 * names that nobody reads, synced, and renamed. Which names and in what order is each format's own affair (directory.ts,
 * gvisor/directory.ts). The directory itself is the lock file (flock): the lock ends with the process that held it.
 */
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
  readAt,
  renameAt,
  SyscallError,
  syncFile,
  tryLockFile,
  unlinkAt,
  writeAt,
} from "../../ffi/index.ts";
import { CheckpointBusyError } from "../errors/errors.ts";

export class StagingDirectory {
  readonly path: string;
  readonly fd: number;
  /** Directories in which we made one whose name is not synced yet. */
  private readonly unsynced: string[];

  /** @throws {CheckpointBusyError} if another save has the directory @throws {SyscallError} */
  constructor(path: string) {
    this.unsynced = makeDirectories(path);
    this.path = path;
    this.fd = openFile(path, O_RDONLY | O_DIRECTORY);
    try {
      if (!tryLockFile(this.fd)) throw new CheckpointBusyError(path);
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

  /** A new file with these contents, synced. */
  async write(name: string, bytes: Uint8Array): Promise<void> {
    const fd = this.create(name);
    try {
      const written =
        bytes.byteLength === 0 ? 0 : writeAt(fd, addressOf(bytes), bytes.byteLength, 0);
      if (written < 0) throw new SyscallError("pwrite", -written, this.pathOf(name));
      await this.syncFile(fd, name);
    } finally {
      closeFile(fd);
    }
  }

  async syncFile(fd: number, name: string): Promise<void> {
    await syncFile(fd, this.pathOf(name));
  }

  /** What was renamed or removed so far stays so, and so does the directory itself. */
  async sync(): Promise<void> {
    await syncFile(this.fd, this.path);
    for (let parent = this.unsynced.pop(); parent !== undefined; parent = this.unsynced.pop())
      await syncDirectory(parent);
  }

  rename(from: string, to: string): void {
    renameAt(this.fd, from, to);
  }

  /**
   * Renames over a file that may be large. Its blocks are freed when it is closed last, here in a thread of the runtime's: in
   * the rename itself that would stop this one for 0.15 s/GiB.
   */
  async replace(from: string, to: string): Promise<void> {
    const old = openIfExists(this.fd, to, O_PATH | O_NOFOLLOW);
    try {
      this.rename(from, to);
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
    closeFile(this.fd);
  }

  /**
   * Closes the file that was written, takes the steps that tidy up, and closes the directory: all of it.
   * @throws the first failure, and the others with it
   */
  end(writtenFd: number, steps: readonly (() => void)[]): void {
    let failure: { readonly error: unknown } | undefined;
    for (const step of [() => closeFile(writtenFd), ...steps, () => this.close()]) {
      try {
        step();
      } catch (error) {
        failure = { error: failure === undefined ? error : withLater(failure.error, error) };
      }
    }
    if (failure !== undefined) throw failure.error;
  }
}

/** Does the work and then closes the writer. If both fail, the work's failure is thrown, and the other with it. */
export async function closing<T>(writer: { close(): void }, work: () => Promise<T>): Promise<T> {
  let result: T;
  try {
    result = await work();
  } catch (error) {
    try {
      writer.close();
    } catch (closeError) {
      throw withLater(error, closeError);
    }
    throw error;
  }
  writer.close();
  return result;
}

/** The first of two failures, with the later one at the end of its causes; where it cannot stand there, both as one. */
function withLater(first: unknown, later: unknown): unknown {
  // What the program throws may be its own cause.
  const chain = new Set<unknown>();
  let last = first;
  while (last instanceof Error && last.cause instanceof Error && !chain.has(last)) {
    chain.add(last);
    last = last.cause;
  }
  if (last === later) return first;
  // Nor can a frozen one be given a cause.
  const isAdded =
    last instanceof Error && last.cause === undefined && Reflect.set(last, "cause", later);
  return isAdded ? first : new AggregateError([first, later], "Several steps failed");
}

/** Makes a directory where there is none, and those above it. Returns in which directories it made one. */
function makeDirectories(path: string): string[] {
  let above: string[] = [];
  try {
    return makeIfAbsent(path) ? [resolve(dirname(path))] : [];
  } catch (error) {
    if (!(error instanceof SyscallError && error.code === "ENOENT") || dirname(path) === path)
      throw error;
    above = makeDirectories(dirname(path));
  }
  return makeIfAbsent(path) ? [...above, resolve(dirname(path))] : above;
}

/** True if it made the directory; false if something has that name already. */
function makeIfAbsent(path: string): boolean {
  try {
    makeDirectory(path, 0o700);
    return true;
  } catch (error) {
    if (error instanceof SyscallError && error.code === "EEXIST") return false;
    throw error;
  }
}

async function syncDirectory(path: string): Promise<void> {
  let fd: number;
  try {
    fd = openFile(path, O_RDONLY | O_DIRECTORY);
  } catch (error) {
    // Whoever may make names in a directory but not read it cannot sync it either.
    if (error instanceof SyscallError && error.code === "EACCES") return;
    throw error;
  }
  try {
    await syncFile(fd, path);
  } finally {
    closeFile(fd);
  }
}

/**
 * Opens a file of a directory, for reading unless `flags` say otherwise; undefined if there is none. A FIFO in its place
 * does not hold us up: O_NONBLOCK means nothing else for files.
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

/** Reads [offset, offset + lengthBytes) of a file; less if it ends before. @throws {SyscallError} with `path` */
export function readBytes(
  fd: number,
  offset: number,
  lengthBytes: number,
  path: string,
): Uint8Array<ArrayBuffer> {
  return readInto(new Uint8Array(new ArrayBuffer(lengthBytes)), fd, offset, path);
}

/** Fills `bytes` with a file's, from `offset` on; what it could fill if the file ends before. @throws {SyscallError} */
export function readInto<T extends ArrayBufferLike>(
  bytes: Uint8Array<T>,
  fd: number,
  offset: number,
  path: string,
) {
  const moved = bytes.byteLength === 0 ? 0 : readAt(fd, addressOf(bytes), bytes.byteLength, offset);
  if (moved < 0) throw new SyscallError("pread", -moved, path);
  return bytes.subarray(0, moved);
}
