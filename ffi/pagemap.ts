/**
 * /proc/self/pagemap: what the kernel has behind each page of this process (proc(5)). No privilege
 * is needed, because physical addresses are not read.
 */
import { SyscallError } from "./errors.ts";
import { O_RDONLY, openFile } from "./file.ts";
import { SYSTEM_PAGE_SIZE } from "./libc.ts";
import { addressOf } from "./memory.ts";
import { readAt } from "./transfer.ts";

/** Bits of the upper half of an entry. */
const PRESENT = 1 << 31;
const SWAPPED = 1 << 30;
const OF_FILE = 1 << 29;
const ENTRY_BYTES = 8;

/** A page of a private mapping of a file. */
export const PrivatePage = {
  /** Not in memory for this process. */
  Absent: 0,
  /** The file's: this process has not written it. */
  Clean: 1,
  /** A copy that this process has written, in memory or swapped out. */
  Copy: 2,
} as const;

/** The process's page map. @throws {SyscallError} */
export function openPagemap(): number {
  return openFile("/proc/self/pagemap", O_RDONLY);
}

/** Reads `count` entries from `address` on. `entries` cannot move. @throws {SyscallError} */
export function readPagemap(
  fd: number,
  address: number,
  count: number,
  entries: Int32Array<SharedArrayBuffer>,
): void {
  const lengthBytes = count * ENTRY_BYTES;
  const offset = (address / SYSTEM_PAGE_SIZE) * ENTRY_BYTES;
  const result = readAt(fd, addressOf(entries), lengthBytes, offset);
  if (result !== lengthBytes) throw new SyscallError("pread", -Math.min(-1, result));
}

/** What an entry says: one of PrivatePage. */
export function privatePageOf(entries: Int32Array, index: number): number {
  const entry = entries[2 * index + 1]!;
  if ((entry & (OF_FILE | PRESENT)) === (OF_FILE | PRESENT)) return PrivatePage.Clean;
  return (entry & (PRESENT | SWAPPED)) === 0 ? PrivatePage.Absent : PrivatePage.Copy;
}
