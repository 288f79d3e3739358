/**
 * Reads and writes of native memory. Every function checks its integers, retries EINTR, and returns
 * the number of bytes or a negative error number; all but the vector calls finish short transfers.
 */
import { ptr, read } from "bun:ffi";
import { type Fault, enter } from "./calls.ts";
import { checkInteger } from "./check.ts";
import { SyscallError } from "./errors.ts";
import { EINTR } from "./file.ts";
import { errno, libc } from "./libc.ts";
import { addressOf } from "./memory.ts";

/** IOV_MAX: more segments in one call are EINVAL. */
export const MAX_IOVECS = 1024;

type Transfer = (fd: number, address: number, count: number, offset: number) => number | bigint;

/** One transfer, which may fall short. Returns bytes moved or the negative error number. */
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

/**
 * pread(2). Returns bytes read, fewer only at the end of the file, or the negative error number.
 */
export function readAt(fd: number, address: number, lengthBytes: number, offset: number): number {
  return transferAll("pread", libc.pread as Transfer, fd, address, lengthBytes, offset);
}

/** pwrite(2). Returns the bytes written, all of them, or the negative error number. */
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
 * preadv(2), once, into the `count` (at most 1024) segments at address `iovecs`. Returns bytes
 * read, possibly fewer, or the negative error number. `lengthBytes` is the sum of the segments.
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

/** A fault shortens a vector call: it ends inside its first segment. */
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
 * write(2), for a file without positions: a pipe, an event descriptor. Blocks until all is written.
 * Returns the bytes written, or the negative error number.
 */
export function writeStream(fd: number, address: number, lengthBytes: number): number {
  return transferAll("write", writeHere, fd, address, lengthBytes, 0);
}

const writeHere: Transfer = (fd, address, count) => libc.write(fd, address, count);

const ZEROS_BYTES = 1024 * 1024;
let zeros: Uint8Array | undefined;

/** Writes zeros into a range of a file, so that it has memory or blocks. @throws {SyscallError} */
export function writeZeros(fd: number, offset: number, lengthBytes: number): void {
  zeros ??= new Uint8Array(new ArrayBuffer(ZEROS_BYTES));
  const address = addressOf(zeros);
  for (let done = 0; done < lengthBytes; done += ZEROS_BYTES) {
    const count = Math.min(ZEROS_BYTES, lengthBytes - done);
    const result = writeAt(fd, address, count, offset + done);
    if (result < 0) throw new SyscallError("pwrite", -result);
  }
}
