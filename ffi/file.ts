/**
 * Files: open, read, write, sync, and the calls that only memory files need. Every wrapper checks its integers, retries
 * EINTR and throws `SyscallError`; the transfer functions finish short reads and writes.
 */
import { ptr, read } from "bun:ffi";
import { type Fault, enter } from "./calls.ts";
import { checkInteger } from "./check.ts";
import { SyscallError } from "./errors.ts";
import { errno, libc } from "./libc.ts";

export const O_RDONLY = 0;
export const O_WRONLY = 1;
export const O_RDWR = 2;
export const O_CREAT = 0o100;
export const O_EXCL = 0o200;
export const O_TRUNC = 0o1000;
export const O_NONBLOCK = 0o4000;
export const O_CLOEXEC = 0o2000000;
export const O_PATH = 0o10000000;
// These three differ by architecture (asm/fcntl.h of arm64 swaps O_DIRECT and O_DIRECTORY's neighbours).
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
const POSIX_FADV_DONTNEED = 4;
export const ENXIO = 6;
export const EINTR = 4;
export const EWOULDBLOCK = 11;
export const EIO = 5;
const EBADF = 9;

/** IOV_MAX: more segments in one call are EINVAL. */
export const MAX_IOVECS = 1024;

/** For this folder: text as C has it. @throws {TypeError} */
export function cString(text: string): Buffer {
  if (typeof text !== "string")
    throw new TypeError(`Expected a path to be a string, got ${String(text)}`);
  if (text.includes("\0"))
    throw new TypeError(`Expected a path without NUL, got ${JSON.stringify(text)}`);
  return Buffer.from(`${text}\0`);
}

/** For this folder: runs a call that answers -1 on failure, again after EINTR. `fd`: -1 where it has none. @throws {SyscallError} */
export function check(
  syscall: string,
  fd: number,
  path: string | undefined,
  call: () => number,
  offset = 0,
  lengthBytes = 0,
): number {
  const fault = enter(syscall, fd, offset, lengthBytes);
  if (fault !== undefined && "errno" in fault) throw new SyscallError(syscall, fault.errno, path);
  for (;;) {
    const result = call();
    if (result !== -1) return result;
    const error = errno();
    if (error !== EINTR) throw new SyscallError(syscall, error, path);
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

/** The same file once more, for reading past the page cache (O_DIRECT), or -1 where the file system or /proc does not allow it. */
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
 * close(2). The descriptor is gone whatever the answer is (so EINTR is not retried), and what an answer of EIO or ENOSPC says is
 * that earlier writes failed. Files whose writes matter here are synced before they are closed, and fsync has said it then.
 * What is left is EBADF, a mistake of ours. @throws {SyscallError}
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
 * The error number of a call of node:fs, in a thread of the runtime's; 0 if it came through. (By hand, and loaded when it is
 * needed: `promisify` would have every thread load node:util, for 2 ms, and node:fs takes 2 to 4.)
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
 * close(2) in a thread of the runtime's, for a file that may have lost its last name: freeing gigabytes of blocks takes 0.15
 * s/GiB on ext4. @throws as `closeFile`
 */
export async function closeInBackground(fd: number): Promise<void> {
  checkInteger("fd", fd, 0, 2 ** 31 - 1);
  const fault = enter("close", fd, 0, 0);
  requireClosed(fault, await inRuntime("close", fd));
}

/** fsync(2) in a thread of the runtime's: a sync of gigabytes takes seconds. @throws {SyscallError} with `path` */
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

/** Forbids anybody to shrink a memory file: nobody can turn our mapped pages into SIGBUS. */
export function sealAgainstShrinking(fd: number): void {
  checkOn("fcntl", fd, undefined, () => libc.fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK));
}

/** Turns O_DIRECT on or off for an open file. False if its file system has no direct I/O. */
export function setDirectIo(fd: number, on: boolean): boolean {
  try {
    const flags = checkOn("fcntl", fd, undefined, () => libc.fcntl(fd, F_GETFL, 0));
    checkOn("fcntl", fd, undefined, () =>
      libc.fcntl(fd, F_SETFL, on ? flags | O_DIRECT : flags & ~O_DIRECT),
    );
    return true;
  } catch (error) {
    if (error instanceof SyscallError && error.code === "EINVAL") return false;
    throw error;
  }
}

export function truncateFile(fd: number, lengthBytes: number): void {
  checkInteger("lengthBytes", lengthBytes);
  checkOn("ftruncate", fd, undefined, () => libc.ftruncate(fd, lengthBytes));
}

/** Commits a range of the file: the kernel allocates its pages now. */
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

/** Decommits a range of the file: its pages go back to the kernel and read as zero. */
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

/** The first byte at or after `offset` that the file has data for, or -1 when only a hole follows. Touches no page. */
export function seekData(fd: number, offset: number): number {
  return seek(fd, offset, SEEK_DATA);
}

/** The first byte at or after `offset` that is in a hole (the file's end counts as one). */
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

// struct stat: st_dev at 0, st_ino at 8, st_size at 48, st_blocks at 64 on x64 and arm64 alike (asm/stat.h).
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

/** Asks the kernel to drop a file's clean page cache. */
export function dropPageCache(fd: number): void {
  const error = libc.posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  if (error !== 0) throw new SyscallError("posix_fadvise", error);
}

type Transfer = (fd: number, address: number, count: number, offset: number) => number | bigint;

/** One transfer: bytes moved, or the negative error number. EINTR is retried, a short count is the caller's affair. */
function transferOnce(
  transfer: Transfer,
  fd: number,
  address: number,
  count: number,
  offset: number,
  fault: Fault,
): number {
  if (fault !== undefined && "errno" in fault) return -fault.errno;
  for (;;) {
    const moved = Number(transfer(fd, address, count, offset));
    if (moved !== -1) return moved;
    const error = errno();
    if (error !== EINTR) return -error;
  }
}

function limited(fault: Fault, lengthBytes: number): number {
  return fault !== undefined && "maxBytes" in fault
    ? Math.min(fault.maxBytes, lengthBytes)
    : lengthBytes;
}

function checkTransfer(fd: number, address: number, lengthBytes: number, offset: number): void {
  checkInteger("fd", fd, 0, 2 ** 31 - 1);
  checkInteger("address", address, 1);
  checkInteger("lengthBytes", lengthBytes);
  checkInteger("offset", offset);
}

/** pread(2) to native memory. Returns bytes read (short only at the end of the file) or the negative error number. */
export function readAt(fd: number, address: number, lengthBytes: number, offset: number): number {
  return transferAll("pread", libc.pread as Transfer, fd, address, lengthBytes, offset);
}

/** pwrite(2) from native memory. Returns bytes written (all of them) or the negative error number. */
export function writeAt(fd: number, address: number, lengthBytes: number, offset: number): number {
  return transferAll("pwrite", libc.pwrite as Transfer, fd, address, lengthBytes, offset);
}

function transferAll(
  syscall: string,
  transfer: Transfer,
  fd: number,
  address: number,
  lengthBytes: number,
  offset: number,
): number {
  checkTransfer(fd, address, lengthBytes, offset);
  let done = 0;
  while (done < lengthBytes) {
    const fault = enter(syscall, fd, offset + done, lengthBytes - done);
    const count = limited(fault, lengthBytes - done);
    const moved =
      count === 0 ? 0 : transferOnce(transfer, fd, address + done, count, offset + done, fault);
    if (moved < 0) return moved;
    if (moved === 0) break;
    done += moved;
  }
  return done;
}

/**
 * preadv(2) into iovecs that stand at `iovecs` (count <= 1024). Returns bytes read in one call, short counts included,
 * or the negative error number. `lengthBytes` is the sum of the segments.
 */
export function readVectorAt(
  fd: number,
  iovecs: number,
  count: number,
  lengthBytes: number,
  offset: number,
): number {
  return vectorOnce("preadv", libc.preadv as Transfer, fd, iovecs, count, lengthBytes, offset);
}

/** pwritev(2), as `readVectorAt`. */
export function writeVectorAt(
  fd: number,
  iovecs: number,
  count: number,
  lengthBytes: number,
  offset: number,
): number {
  return vectorOnce("pwritev", libc.pwritev as Transfer, fd, iovecs, count, lengthBytes, offset);
}

function vectorOnce(
  syscall: string,
  transfer: Transfer,
  fd: number,
  iovecs: number,
  count: number,
  lengthBytes: number,
  offset: number,
): number {
  checkTransfer(fd, iovecs, lengthBytes, offset);
  checkInteger("iovec count", count, 1, MAX_IOVECS);
  const fault = enter(syscall, fd, offset, lengthBytes);
  if (fault !== undefined && "maxBytes" in fault)
    return shortVector(transfer, fd, iovecs, fault.maxBytes, offset);
  return transferOnce(transfer, fd, iovecs, count, offset, fault);
}

/** What a fault makes of a vector call: it ends inside its first segment. */
function shortVector(
  transfer: Transfer,
  fd: number,
  iovecs: number,
  maxBytes: number,
  offset: number,
): number {
  const first = new BigUint64Array(new ArrayBuffer(16));
  first[0] = read.u64(iovecs as never, 0);
  first[1] = BigInt(Math.min(maxBytes, Number(read.u64(iovecs as never, 8))));
  return transferOnce(transfer, fd, ptr(first) as number, 1, offset, undefined);
}

/**
 * write(2), for a file that has no positions: a pipe, an event descriptor. Blocks until all is
 * written. Returns the bytes written, or the negative error number.
 */
export function writeStream(fd: number, address: number, lengthBytes: number): number {
  return transferAll("write", writeHere, fd, address, lengthBytes, 0);
}

const writeHere: Transfer = (fd, address, count) => libc.write(fd, address, count);
