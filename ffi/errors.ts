/** The operating system's errors, in the shape of Node's: `code`, negative `errno`, `syscall`, `path`. */
import { constants } from "node:os";

/** Node's table, and what it leaves out that we use (asm-generic/errno.h: the same on x64 and arm64). */
const numberByCode: Readonly<Record<string, number>> = { ...constants.errno, EOWNERDEAD: 130 };
// Of two names the first one counts, as in Node: EAGAIN, not EWOULDBLOCK.
const codeByErrno = new Map(
  Object.entries(numberByCode)
    .reverse()
    .map(([code, number]) => [number, code]),
);

/** "ENOSPC" for 28; "E133" for a number that this platform's table does not name. */
export function errnoCode(errno: number): string {
  return codeByErrno.get(errno) ?? `E${errno}`;
}

/** The number of an error code: 28 for "ENOSPC". Throws a TypeError for a code that Linux does not know. */
export function errnoNumber(code: string): number {
  const number = numberByCode[code];
  if (number === undefined) throw new TypeError(`Unknown error code ${JSON.stringify(code)}`);
  return number;
}

/** A system call failed. `code` is stable ("ENOSPC"); `errno` is negative, as in Node. */
export class SyscallError extends Error {
  override readonly name = "SyscallError";
  readonly code: string;
  readonly errno: number;
  readonly syscall: string;
  readonly path?: string;

  /** `errno` is the positive number from the C library. */
  constructor(syscall: string, errno: number, path?: string, detail?: string) {
    const code = errnoCode(errno);
    super(
      `${code}: ${syscall} failed${path === undefined ? "" : ` for '${path}'`}${detail === undefined ? "" : `: ${detail}`}`,
    );
    this.code = code;
    this.errno = -errno;
    this.syscall = syscall;
    if (path !== undefined) this.path = path;
  }
}

const REFUSALS: readonly string[] = ["EPERM", "EACCES", "ENOSYS", "EINVAL", "ENODEV", "ENOTSUP"];

/**
 * True if the kernel, a seccomp filter or the file system does not offer the call. (ENOTSUP and
 * EOPNOTSUPP are one number on Linux.) An optional call then counts as not made.
 */
export function isRefused(error: SyscallError): boolean {
  return REFUSALS.includes(error.code) || error.code === "EOPNOTSUPP";
}
