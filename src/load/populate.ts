/**
 * Makes pages present before they are touched, because a touch that fails would kill the process.
 */
import {
  isRefused,
  MADV_POPULATE_READ,
  MADV_POPULATE_WRITE,
  mincore,
  SyscallError,
  tryAdvise,
} from "../../ffi/index.ts";
import { PAGE_SIZE } from "../pages/units.ts";

/**
 * Makes mapped pages present. Returns the error if that failed: EFAULT for pages beyond the end of
 * the file, EIO or EHWPOISON for pages that cannot be read.
 */
export function populate(address: number, lengthBytes: number): Error | null {
  return advise(address, lengthBytes, MADV_POPULATE_READ);
}

/**
 * True if the page cache has all pages of a mapping. (For a file that this user may not write, the
 * kernel always answers yes.)
 */
export function isResident(address: number, lengthBytes: number): boolean {
  const residency = new Uint8Array(lengthBytes / PAGE_SIZE);
  try {
    mincore(address, lengthBytes, residency);
  } catch (error) {
    if (error instanceof SyscallError) return false;
    throw error;
  }
  return residency.every((status) => (status & 1) !== 0);
}

/**
 * Makes pages present for writing. Returns the error if that failed: EFAULT if a disk has no room.
 */
export function populateForWrite(address: number, lengthBytes: number): Error | null {
  return advise(address, lengthBytes, MADV_POPULATE_WRITE);
}

/**
 * Linux before 5.14 does not have this advice, and a seccomp filter may refuse it: the first touch
 * makes the pages present.
 */
function advise(address: number, lengthBytes: number, advice: number): Error | null {
  const errno = tryAdvise(address, lengthBytes, advice);
  if (errno === 0) return null;
  const error = new SyscallError("madvise", errno);
  return isRefused(error) ? null : error;
}
