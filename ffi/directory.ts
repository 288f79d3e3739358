/**
 * Directories: make, list and lock them, and change the names in them. All functions but
 * `makeDirectory` work on an open directory, so they reach the same one if it is renamed or
 * replaced meanwhile.
 */
import { enter } from "./calls.ts";
import { check, checkOn, cString, EWOULDBLOCK } from "./file.ts";
import { SyscallError } from "./errors.ts";
import { libc } from "./libc.ts";
import { addressOf } from "./memory.ts";

const LOCK_EX = 2;
const LOCK_UN = 8;
const LOCK_NB = 4;
const SEEK_SET = 0;
/** The offset that the fault hook sees. */
const REWIND = -1;
// glibc has a function for it only since 2.30, and musl gives it another name.
const SYS_GETDENTS64 = process.arch === "arm64" ? 61 : 217;
const LIST_BYTES = 32 * 1024;
// struct linux_dirent64: u64 d_ino, i64 d_off, u16 d_reclen, u8 d_type, char d_name[]
const RECORD_LENGTH_AT = 16;
const NAME_AT = 19;

/** mkdir(2). @throws {SyscallError} with `path` */
export function makeDirectory(path: string, mode: number): void {
  const name = cString(path);
  check("mkdir", -1, path, () => libc.mkdir(name as never, mode));
}

/** The names in an open directory, without "." and "..", in no order. @throws {SyscallError} */
export function listDirectory(fd: number): string[] {
  checkOn("lseek", fd, undefined, () => Number(libc.lseek(fd, 0, SEEK_SET)), REWIND);
  const bytes = Buffer.from(new ArrayBuffer(LIST_BYTES));
  const address = addressOf(bytes);
  const names: string[] = [];
  for (;;) {
    const filled = checkOn("getdents", fd, undefined, () =>
      Number(libc.syscall(SYS_GETDENTS64, fd, address, LIST_BYTES, 0, 0, 0)),
    );
    if (filled === 0) return names;
    for (let at = 0; at < filled; at += bytes.readUInt16LE(at + RECORD_LENGTH_AT)) {
      const name = bytes.toString("utf8", at + NAME_AT, bytes.indexOf(0, at + NAME_AT));
      if (name !== "." && name !== "..") names.push(name);
    }
  }
}

export function renameAt(directoryFd: number, from: string, to: string): void {
  const a = cString(from);
  const b = cString(to);
  checkOn("renameat", directoryFd, from, () =>
    libc.renameat(directoryFd, a as never, directoryFd, b as never),
  );
}

export function unlinkAt(directoryFd: number, name: string): void {
  const bytes = cString(name);
  checkOn("unlinkat", directoryFd, name, () => libc.unlinkat(directoryFd, bytes as never, 0));
}

/**
 * Takes an exclusive lock that ends with the descriptor or the process. Returns false if another
 * descriptor has it. @throws {SyscallError}
 */
export function tryLockFile(fd: number): boolean {
  try {
    checkOn("flock", fd, undefined, () => libc.flock(fd, LOCK_EX | LOCK_NB));
    return true;
  } catch (error) {
    if (error instanceof SyscallError && error.errno === -EWOULDBLOCK) return false;
    throw error;
  }
}

/** Ends the lock of an open file; if the kernel refuses, closing the file does. */
export function unlockFile(fd: number): void {
  const fault = enter("flock", fd, 0, 0);
  if (fault === undefined) libc.flock(fd, LOCK_UN);
}
