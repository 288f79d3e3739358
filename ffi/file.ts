/**
 * Files: open, sync, close, and the calls that only memory files need. Every wrapper checks its
 * integers, retries EINTR and throws `SyscallError`. Reads and writes are in transfer.ts.
 */
import { type Fault, enter } from "./calls.ts";
import { checkInteger } from "./check.ts";
import { isRefused, SyscallError, wholePath } from "./errors.ts";
import { errno, libc } from "./libc.ts";

export const O_RDONLY = 0;
export const O_WRONLY = 1;
export const O_RDWR = 2;
export const O_CREAT = 0o100;
export const O_EXCL = 0o200;
export const O_NONBLOCK = 0o4000;
export const O_CLOEXEC = 0o2000000;
export const O_PATH = 0o10000000;
// These three differ by architecture (asm/fcntl.h).
const ARM64 = process.arch === "arm64";
export const O_DIRECTORY = ARM64 ? 0o40000 : 0o200000;
export const O_NOFOLLOW = ARM64 ? 0o100000 : 0o400000;
export const O_DIRECT = ARM64 ? 0o200000 : 0o40000;

const MFD_CLOEXEC = 1;
const MFD_ALLOW_SEALING = 2;
const F_GETFL = 3;
const F_SETFL = 4;
const F_DUPFD_CLOEXEC = 1030;
const F_ADD_SEALS = 1033;
const F_SEAL_SHRINK = 2;
const FALLOC_FL_KEEP_SIZE = 1;
const FALLOC_FL_PUNCH_HOLE = 2;
const SEEK_DATA = 3;
const SEEK_HOLE = 4;
const POSIX_FADV_WILLNEED = 3;
const POSIX_FADV_DONTNEED = 4;
const SYNC_FILE_RANGE_WRITE = 2;
export const ENXIO = 6;
export const EINTR = 4;
export const EWOULDBLOCK = 11;
export const EIO = 5;
const EBADF = 9;

/** For this folder: text as a C string. @throws {TypeError} @internal */
export function cString(text: string): Buffer {
  if (typeof text !== "string")
    throw new TypeError(`Expected a path to be a string, got ${String(text)}`);
  if (text.includes("\0"))
    throw new TypeError(`Expected a path without NUL, got ${JSON.stringify(text)}`);
  return Buffer.from(`${text}\0`);
}

/**
 * For this folder: makes a call that returns -1 on failure, again after EINTR. `fd` is -1 if the
 * call has none. @throws {SyscallError}
 */
export function check(
  syscall: string,
  fd: number,
  path: string | undefined,
  call: () => number,
  offset = 0,
  lengthBytes = 0,
): number {
  const fault = enter(syscall, fd, offset, lengthBytes);
  if (fault !== undefined && "errno" in fault)
    throw new SyscallError(syscall, fault.errno, wholePath(fd, path));
  for (;;) {
    const result = call();
    if (result !== -1) return result;
    const error = errno();
    if (error !== EINTR) throw new SyscallError(syscall, error, wholePath(fd, path));
  }
}

/** As `check`, on an open file. @throws {SyscallError} {RangeError} {TypeError} */
export function checkOn(...call: Parameters<typeof check>): number {
  checkInteger("fd", call[1], 0, 2 ** 31 - 1);
  return check(...call);
}

/** open(2), always with O_CLOEXEC. @throws {SyscallError} with `path` */
export function openFile(path: string, flags: number, mode = 0o600): number {
  const name = cString(path);
  return check("open", -1, path, () => libc.open(name as never, flags | O_CLOEXEC, mode));
}

/**
 * Opens the same file again for reading without the page cache (O_DIRECT). Returns -1 if the file
 * system or /proc does not allow it.
 */
export function reopenDirect(fd: number): number {
  try {
    return openFile(`/proc/self/fd/${fd}`, O_RDONLY | O_DIRECT);
  } catch (error) {
    if (error instanceof SyscallError) return -1;
    throw error;
  }
}

/** openat(2), always with O_CLOEXEC: `name` is one component below the directory. */
export function openAt(directoryFd: number, name: string, flags: number, mode = 0o600): number {
  const bytes = cString(name);
  return checkOn("openat", directoryFd, name, () =>
    libc.openat(directoryFd, bytes as never, flags | O_CLOEXEC, mode),
  );
}

/** Another descriptor of the same open file, close-on-exec. @throws {SyscallError} */
export function duplicateFile(fd: number): number {
  return checkOn("fcntl", fd, undefined, () => libc.fcntl(fd, F_DUPFD_CLOEXEC, 0));
}

/**
 * close(2). The descriptor is gone even if the call fails, so EINTR is not retried. EIO and ENOSPC
 * mean that earlier writes failed; files whose writes matter are synced before, and fsync has
 * reported it. The remaining error is EBADF, a bug of this library. @throws {SyscallError}
 */
export function closeFile(fd: number): void {
  checkInteger("fd", fd, 0, 2 ** 31 - 1);
  const fault = enter("close", fd, 0, 0);
  requireClosed(fault, libc.close(fd) === -1 ? errno() : 0);
}

function requireClosed(fault: Fault, error: number): void {
  const answer = fault !== undefined && "errno" in fault ? fault.errno : error;
  if (answer === EBADF) throw new SyscallError("close", answer);
}

/**
 * Makes a call of node:fs in a thread of the runtime. Resolves to its error number, or 0. (node:fs
 * is loaded on first use, which takes 2 to 4 ms, and `promisify` would load node:util for 2 ms
 * more.)
 */
function inRuntime(name: "close" | "fsync", fd: number): Promise<number> {
  return new Promise((resolve, reject) => {
    process.getBuiltinModule("node:fs")[name](fd, (error) => {
      if (error && error.errno === undefined) reject(error);
      else resolve(-(error?.errno ?? 0));
    });
  });
}

/**
 * close(2) in a thread of the runtime, for a file that may have lost its last name: freeing its
 * blocks takes 0.15 s/GiB on ext4. @throws as `closeFile`
 */
export async function closeInBackground(fd: number): Promise<void> {
  checkInteger("fd", fd, 0, 2 ** 31 - 1);
  const fault = enter("close", fd, 0, 0);
  requireClosed(fault, await inRuntime("close", fd));
}

/**
 * fsync(2) in a thread of the runtime: gigabytes take seconds.
 * @throws {SyscallError} with `path`
 */
export async function syncFile(fd: number, path: string): Promise<void> {
  const fault = enter("fsync", fd, 0, 0);
  if (fault !== undefined && "errno" in fault) throw new SyscallError("fsync", fault.errno, path);
  const error = await inRuntime("fsync", fd);
  if (error !== 0) throw new SyscallError("fsync", error, path);
}

/** An anonymous memory file, close-on-exec, sealable. */
export function createMemoryFd(name: string): number {
  const bytes = cString(name.slice(0, 200));
  return check("memfd_create", -1, undefined, () =>
    libc.memfd_create(bytes as never, MFD_CLOEXEC | MFD_ALLOW_SEALING),
  );
}

/**
 * Forbids shrinking a memory file, so that no process can turn its mapped pages into SIGBUS. If the
 * kernel refuses, the file works without the seal.
 */
export function sealAgainstShrinking(fd: number): void {
  try {
    checkOn("fcntl", fd, undefined, () => libc.fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), F_ADD_SEALS);
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error;
    // No other process has the file unless it opens it through /proc.
  }
}

/**
 * Turns O_DIRECT on or off for an open file. Returns false if its file system has no direct I/O.
 */
export function setDirectIo(fd: number, on: boolean): boolean {
  try {
    const flags = checkOn("fcntl", fd, undefined, () => libc.fcntl(fd, F_GETFL, 0), F_GETFL);
    const wanted = on ? flags | O_DIRECT : flags & ~O_DIRECT;
    checkOn("fcntl", fd, undefined, () => libc.fcntl(fd, F_SETFL, wanted), F_SETFL);
    return true;
  } catch (error) {
    if (error instanceof SyscallError && isRefused(error)) return false;
    throw error;
  }
}

export function truncateFile(fd: number, lengthBytes: number): void {
  checkInteger("lengthBytes", lengthBytes);
  checkOn("ftruncate", fd, undefined, () => libc.ftruncate(fd, lengthBytes));
}

/** Commits a range of the file: the kernel allocates its pages now. @throws {SyscallError} */
export function allocateRange(fd: number, offset: number, lengthBytes: number): void {
  checkInteger("offset", offset);
  checkInteger("lengthBytes", lengthBytes, 1);
  checkOn(
    "fallocate",
    fd,
    undefined,
    () => libc.fallocate(fd, 0, offset, lengthBytes),
    offset,
    lengthBytes,
  );
}

/** Decommits a range: its pages go back to the kernel and read as zero. @throws {SyscallError} */
export function punchHole(fd: number, offset: number, lengthBytes: number): void {
  checkInteger("offset", offset);
  checkInteger("lengthBytes", lengthBytes, 1);
  checkOn(
    "fallocate",
    fd,
    undefined,
    () => libc.fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, lengthBytes),
    offset,
    lengthBytes,
  );
}

/** The first byte at or after `offset` with data, or -1 if only a hole follows. Touches no page. */
export function seekData(fd: number, offset: number): number {
  return seek(fd, offset, SEEK_DATA);
}

/** The first byte at or after `offset` that is in a hole. The file's end counts as one. */
export function seekHole(fd: number, offset: number): number {
  return seek(fd, offset, SEEK_HOLE);
}

function seek(fd: number, offset: number, whence: number): number {
  checkInteger("offset", offset);
  const fault = enter("lseek", fd, offset, 0);
  if (fault !== undefined && "errno" in fault) throw new SyscallError("lseek", fault.errno);
  const result = Number(libc.lseek(fd, offset, whence));
  if (result !== -1) return result;
  const error = errno();
  if (error === ENXIO) return -1;
  throw new SyscallError("lseek", error);
}

export interface FileStatus {
  readonly device: number;
  readonly inode: number;
  readonly sizeBytes: number;
  /** What the file system spends on the file: for a memfd, committed memory. */
  readonly allocatedBytes: number;
  /** True for a regular file. */
  readonly isFile: boolean;
}

// struct stat (asm/stat.h) of x64 and arm64: st_dev at 0, st_ino at 8, st_size at 48, st_blocks at
// 64.
const statWords = new BigInt64Array(new ArrayBuffer(256));
// st_mode is at 24 on x64 and at 16 on arm64.
const statMode = new Uint32Array(statWords.buffer, ARM64 ? 16 : 24, 1);
const S_IFMT = 0o170000;

export function fileStatus(fd: number): FileStatus {
  checkOn("fstat", fd, undefined, () => libc.fstat(fd, statWords as never));
  return {
    device: Number(statWords[0]),
    inode: Number(statWords[1]),
    sizeBytes: Number(statWords[6]),
    allocatedBytes: Number(statWords[8]) * 512,
    isFile: (statMode[0]! & S_IFMT) === 0o100000,
  };
}

/**
 * Tells the kernel to begin writing a range of the page cache to the device, so that a later sync
 * waits less. A hint: the sync also reports the errors of such writes.
 */
export function startWriteback(fd: number, offset: number, lengthBytes: number): void {
  checkInteger("offset", offset);
  checkInteger("lengthBytes", lengthBytes, 1);
  const fault = enter("sync_file_range", fd, offset, lengthBytes);
  if (fault !== undefined && "errno" in fault) return;
  libc.sync_file_range(fd, offset, lengthBytes, SYNC_FILE_RANGE_WRITE);
}

/** Asks the kernel to read bytes of a file into the page cache, without waiting. A hint. */
export function willNeedFile(fd: number, offset: number, lengthBytes: number): void {
  checkInteger("fd", fd, 0, 2 ** 31 - 1);
  checkInteger("offset", offset);
  checkInteger("lengthBytes", lengthBytes, 1);
  libc.posix_fadvise(fd, offset, lengthBytes, POSIX_FADV_WILLNEED);
}

/** Asks the kernel to drop a file's clean page cache. */
export function dropPageCache(fd: number): void {
  const fault = enter("posix_fadvise", fd, 0, 0);
  if (fault !== undefined && "errno" in fault) return;
  const error = libc.posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  if (error !== 0) throw new SyscallError("posix_fadvise", error);
}
