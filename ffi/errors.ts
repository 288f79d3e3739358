/** The operating system's errors in Node's shape: `code`, negative `errno`, `syscall`, `path`. */
import { readlinkSync } from "node:fs";
import { constants } from "node:os";
import { isAbsolute, join } from "node:path";

/** Node's table, and one number that it lacks (asm-generic/errno.h: the same on x64 and arm64). */
const numberByCode: Readonly<Record<string, number>> = { ...constants.errno, EOWNERDEAD: 130 };
// Of two names for a number, the first one counts, as in Node: EAGAIN, not EWOULDBLOCK.
const codeByErrno = new Map(
  Object.entries(numberByCode)
    .reverse()
    .map(([code, number]) => [number, code]),
);

/** "ENOSPC" for 28; "E133" for a number that this platform's table does not name. */
export function errnoCode(errno: number): string {
  return codeByErrno.get(errno) ?? `E${errno}`;
}

/** The number of an error code: 28 for "ENOSPC". @throws {TypeError} for an unknown code */
export function errnoNumber(code: string): number {
  const number = numberByCode[code];
  if (number === undefined) throw new TypeError(`Unknown error code ${JSON.stringify(code)}`);
  return number;
}

/** The meaning of a code, or the advice for one call. It ends a message. */
const MEANINGS: Readonly<Record<string, string>> = {
  EACCES: "permission denied",
  EBUSY: "it is in use",
  EDQUOT: "the disk quota is used up",
  EIO: "the device failed",
  EMFILE: "the process has as many files open as it may; raise `ulimit -n`",
  ENFILE: "the system has as many files open as it may",
  ENOENT: "no such file or directory",
  ENOSPC: "no space is left on the device",
  ENOSYS: "the kernel does not have this call",
  ENOTDIR: "it, or a part of the path, is not a directory",
  EPERM: "the process may not do this",
  EROFS: "the file system is read-only",
  "open EISDIR": "it is a directory",
  "open ELOOP": "it is a symbolic link, which is not followed; give the path of the file itself",
  "ftruncate EFBIG": "files may not become that large; raise `ulimit -f`",
  "fallocate EFBIG": "files may not become that large; raise `ulimit -f`",
  "pwrite EFBIG": "files may not become that large; raise `ulimit -f`",
  "mmap ENODEV":
    "its file system cannot map files for shared writing; leave out `path`, or give one on a disk",
  "mmap ENOMEM":
    "there is no address space, or there are too many mappings; " +
    "see `ulimit -v` and vm.max_map_count",
};

/** A system call failed. `code` is stable ("ENOSPC"); `errno` is negative, as in Node. */
export class SyscallError extends Error {
  override readonly name = "SyscallError";
  readonly code: string;
  readonly errno: number;
  readonly syscall: string;
  readonly path?: string;

  /** @param errno the positive number of the C library */
  constructor(syscall: string, errno: number, path?: string, detail?: string) {
    const code = errnoCode(errno);
    const advice = MEANINGS[`${syscall} ${code}`];
    const both = advice === undefined ? detail : detail && `${detail}: ${advice}`;
    const meaning = both ?? advice ?? MEANINGS[code];
    const place = path === undefined ? "" : ` for '${path}'`;
    super(`${code}: ${syscall} failed${place}${meaning === undefined ? "" : `: ${meaning}`}`);
    this.code = code;
    this.errno = -errno;
    this.syscall = syscall;
    if (path !== undefined) this.path = path;
  }
}

/** This machine or this format does not support the request. The message says what is supported. */
export class UnsupportedError extends Error {
  override readonly name = "UnsupportedError";
  readonly code = "ERR_UNSUPPORTED";
}

const REFUSALS: readonly string[] = ["EPERM", "EACCES", "ENOSYS", "EINVAL", "ENODEV", "ENOTSUP"];

/**
 * True if the kernel, a seccomp filter or the file system does not offer the call. (ENOTSUP and
 * EOPNOTSUPP are one number on Linux.) The library then works without an optional call.
 */
export function isRefused(error: SyscallError): boolean {
  return REFUSALS.includes(error.code) || error.code === "EOPNOTSUPP";
}

/** For messages: the path of a name in the open directory `fd`. */
export function wholePath(fd: number, path: string | undefined): string | undefined {
  if (path === undefined || fd < 0 || isAbsolute(path)) return path;
  const directory = attempt(() => readlinkSync(`/proc/self/fd/${fd}`));
  return directory === undefined ? path : join(directory, path);
}

/** For messages: the path of an open file; undefined for memory. */
export function pathOfOpen(fd: number): string | undefined {
  if (fd < 0) return undefined;
  const path = attempt(() => readlinkSync(`/proc/self/fd/${fd}`));
  return path?.startsWith("/memfd:") === true ? undefined : path;
}

function attempt<T>(work: () => T): T | undefined {
  try {
    return work();
  } catch (error) {
    // Without /proc, the message has only the name.
    if (error instanceof Error) return undefined;
    throw error;
  }
}
