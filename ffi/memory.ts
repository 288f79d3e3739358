/**
 * Address space: reserve, map, advise, inspect. Addresses are numbers, because user space ends
 * below 2^56.
 *
 * These functions keep no memory alive. A view made by `bufferAt` must be detached (`detach`)
 * before its pages are unmapped, or a later touch kills the process.
 */
import { ptr, toArrayBuffer } from "bun:ffi";
import { enter } from "./calls.ts";
import { checkInteger } from "./check.ts";
import { pathOfOpen, SyscallError } from "./errors.ts";
import { fileStatus } from "./file.ts";
import { errno, isUsable, libc, SYSTEM_PAGE_SIZE } from "./libc.ts";

export const PROT_NONE = 0;
export const PROT_READ = 1;
export const PROT_READ_WRITE = 3;
const MAP_SHARED = 0x01;
const MAP_PRIVATE = 0x02;
const MAP_FIXED = 0x10;
const MAP_ANONYMOUS = 0x20;
const MAP_NORESERVE = 0x4000;
const MAP_FIXED_NOREPLACE = 0x100000;
const MAP_POPULATE = 0x8000;

export const MADV_WILLNEED = 3;
export const MADV_HUGEPAGE = 14;
export const MADV_NOHUGEPAGE = 15;
export const MADV_DONTDUMP = 16;
export const MADV_POPULATE_READ = 22;
export const MADV_POPULATE_WRITE = 23;
export const MADV_COLLAPSE = 25;

const MS_ASYNC = 1;

const EINTR = 4;
const EAGAIN = 11;
const EEXIST = 17;
const EINVAL = 22;
const ENOMEM = 12;

/** The largest ArrayBuffer over native memory: 4 GiB. `toArrayBuffer` throws above it. */
export const MAX_BUFFER_BYTES = 2 ** 32;

function map(
  address: number,
  lengthBytes: number,
  prot: number,
  flags: number,
  fd: number,
  offset: number,
): number {
  checkInteger("address", address);
  checkInteger("lengthBytes", lengthBytes, 1);
  checkInteger("offset", offset);
  const fault = enter("mmap", fd, offset, lengthBytes);
  if (fault !== undefined && "errno" in fault)
    throw new SyscallError("mmap", fault.errno, pathOfOpen(fd));
  const result = Number(libc.mmap(address, lengthBytes, prot, flags, fd, offset));
  if (result !== -1) return result;
  const error = errno();
  const detail = `${lengthBytes} bytes at offset ${offset}`;
  throw new SyscallError("mmap", error, pathOfOpen(fd), detail);
}

/**
 * Reserves address space without memory: touching it is a fault. Returns its address, a multiple of
 * `alignment`. @throws {SyscallError}
 */
export function reserve(lengthBytes: number, alignment: number): number {
  checkInteger("lengthBytes", lengthBytes, 1);
  checkInteger("alignment", alignment, SYSTEM_PAGE_SIZE);
  const whole = map(
    0,
    lengthBytes + alignment,
    PROT_NONE,
    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
    -1,
    0,
  );
  const aligned = Math.ceil(whole / alignment) * alignment;
  if (aligned > whole) unmap(whole, aligned - whole);
  const tail = whole + alignment - aligned;
  if (tail > 0) unmap(aligned + lengthBytes, tail);
  return aligned;
}

/** Replaces reserved address space by a shared mapping of the file's bytes from `offset`. */
export function mapFileAt(address: number, lengthBytes: number, fd: number, offset: number): void {
  map(address, lengthBytes, PROT_READ_WRITE, MAP_SHARED | MAP_FIXED, fd, offset);
}

/**
 * Replaces the mapping at `address` by a private mapping of the file's bytes from `offset`: a write
 * copies its page. @throws {SyscallError} ENOMEM if the process has too many mappings
 */
export function mapPrivateAt(
  address: number,
  lengthBytes: number,
  fd: number,
  offset: number,
): void {
  const flags = MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE;
  map(address, lengthBytes, PROT_READ_WRITE, flags, fd, offset);
}

/** Unmaps the range and keeps its address space reserved. */
export function reserveAt(address: number, lengthBytes: number): void {
  map(
    address,
    lengthBytes,
    PROT_NONE,
    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED,
    -1,
    0,
  );
}

/**
 * Replaces the mapping at `address` by zeroed private memory. It takes no memory until it is
 * written.
 */
export function mapAnonymousAt(address: number, lengthBytes: number): void {
  map(
    address,
    lengthBytes,
    PROT_READ_WRITE,
    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED,
    -1,
    0,
  );
}

/**
 * Maps zeroed private memory at `address` if nothing is mapped there yet. Returns true if this call
 * mapped it, false if the address was in use.
 *
 * @throws {SyscallError} if the kernel cannot map there, as before Linux 4.17
 */
export function mapAnonymousOnce(address: number, lengthBytes: number): boolean {
  try {
    const flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE;
    const mapped = map(address, lengthBytes, PROT_READ_WRITE, flags, -1, 0);
    if (mapped === address) return true;
    // An older kernel treats the address as a hint.
    unmap(mapped, lengthBytes);
    throw new SyscallError("mmap", EINVAL);
  } catch (error) {
    if (error instanceof SyscallError && error.errno === -EEXIST) return false;
    throw error;
  }
}

/** Zeroed private memory outside the JavaScript heap. It takes no memory until it is touched. */
export function mapAnonymous(lengthBytes: number): number {
  return map(0, lengthBytes, PROT_READ_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

/** A shared mapping of a file, anywhere. */
export function mapFile(lengthBytes: number, fd: number, offset: number, prot = PROT_READ): number {
  return map(0, lengthBytes, prot, MAP_SHARED, fd, offset);
}

/** A shared, writable mapping of rings that the kernel made (io_uring), with all pages present. */
export function mapRing(lengthBytes: number, fd: number, offset: number): number {
  return map(0, lengthBytes, PROT_READ_WRITE, MAP_SHARED | MAP_POPULATE, fd, offset);
}

export function unmap(address: number, lengthBytes: number): void {
  checkInteger("address", address, 1);
  checkInteger("lengthBytes", lengthBytes, 1);
  enter("munmap", -1, 0, lengthBytes);
  if (libc.munmap(address, lengthBytes) !== 0) throw new SyscallError("munmap", errno());
}

/** madvise(2). Returns 0 or the positive error number, for advice that may fail. */
export function tryAdvise(address: number, lengthBytes: number, advice: number): number {
  checkInteger("address", address, 1);
  checkInteger("lengthBytes", lengthBytes, 1);
  const fault = enter("madvise", advice, 0, lengthBytes);
  if (fault !== undefined && "errno" in fault) return fault.errno;
  for (;;) {
    if (libc.madvise(address, lengthBytes, advice) === 0) return 0;
    const error = errno();
    if (error !== EINTR) return error;
  }
}

/** madvise(2). @throws {SyscallError} */
export function advise(address: number, lengthBytes: number, advice: number): void {
  const error = tryAdvise(address, lengthBytes, advice);
  if (error !== 0) throw new SyscallError("madvise", error);
}

/**
 * True if [address, address + lengthBytes) is mapped without a gap, even if only reserved.
 * `address` is a multiple of the page size. For addresses that are not trusted yet: msync(2) with
 * MS_ASYNC finds gaps and has no other effect.
 */
export function isMapped(address: number, lengthBytes: number): boolean {
  if (!Number.isSafeInteger(address) || address <= 0) return false;
  if (address % SYSTEM_PAGE_SIZE !== 0) return false;
  checkInteger("lengthBytes", lengthBytes, 1);
  const fault = enter("msync", -1, 0, lengthBytes);
  const isFault = fault !== undefined && "errno" in fault;
  if (!isFault && libc.msync(address, lengthBytes, MS_ASYNC) === 0) return true;
  // ENOMEM means a gap. Any other error means that the kernel does not report gaps.
  return (isFault ? fault.errno : errno()) !== ENOMEM;
}

/** mincore(2): bit 0 of `residency[i]` says whether page i of the range is in memory. */
export function mincore(address: number, lengthBytes: number, residency: Uint8Array): void {
  checkInteger("address", address, 1);
  checkInteger("lengthBytes", lengthBytes, 1);
  if (residency.byteLength * SYSTEM_PAGE_SIZE < lengthBytes) {
    throw new RangeError(
      `Expected a residency vector of ${Math.ceil(lengthBytes / SYSTEM_PAGE_SIZE)} bytes, ` +
        `got ${residency.byteLength}`,
    );
  }
  const fault = enter("mincore", -1, 0, lengthBytes);
  if (fault !== undefined && "errno" in fault) throw new SyscallError("mincore", fault.errno);
  for (;;) {
    if (libc.mincore(address, lengthBytes, residency as never) === 0) return;
    const error = errno();
    if (error !== EAGAIN) throw new SyscallError("mincore", error);
  }
}

/**
 * The fraction of `samples` pages, spread evenly over a file, that is in the page cache; 1 for an
 * empty file. Touches no page.
 */
export function residentFraction(fd: number, samples: number): number {
  const pages = Math.ceil(fileStatus(fd).sizeBytes / SYSTEM_PAGE_SIZE);
  const count = Math.min(samples, pages);
  if (count === 0) return 1;
  let address = 0;
  const residency = new Uint8Array(1);
  let resident = 0;
  try {
    address = mapFile(pages * SYSTEM_PAGE_SIZE, fd, 0);
    for (let i = 0; i < count; i++) {
      mincore(
        address + Math.floor(((i + 0.5) * pages) / count) * SYSTEM_PAGE_SIZE,
        SYSTEM_PAGE_SIZE,
        residency,
      );
      resident += residency[0]! & 1;
    }
  } catch (error) {
    // Unknown: the kernel does not report it, the file system does not map files (FUSE with direct
    // I/O), or no address space is left. It is a hint only.
    if (error instanceof SyscallError) return 1;
    throw error;
  } finally {
    if (address !== 0) unmap(address, pages * SYSTEM_PAGE_SIZE);
  }
  return resident / count;
}

/**
 * An ArrayBuffer over native memory, without a copy. 0 < lengthBytes <= 4 GiB. The caller owns the
 * memory, and detaches the buffer before unmapping it.
 */
export function bufferAt(address: number, lengthBytes: number): ArrayBuffer {
  return toArrayBuffer(address as never, 0, lengthBytes) as ArrayBuffer;
}

/** Up to this size `transfer()` copies a pinned buffer faster than a byte stream refuses it. */
const MAX_COPIED_BYTES = 64 * 1024;

/**
 * Detaches a buffer made by `bufferAt`: every view of it then has length 0. Returns false if I/O in
 * flight pins it. Then the memory must not be unmapped yet.
 *
 * `transfer()` copies a pinned buffer (0.3 s for 512 MiB). A byte stream's reader detaches a buffer
 * that it is given to read into, and refuses a pinned one without a copy, in 0.03 ms.
 */
export function detach(buffer: ArrayBuffer): boolean {
  if (buffer.detached) return true;
  if (buffer.byteLength <= MAX_COPIED_BYTES) {
    buffer.transfer();
    return buffer.detached;
  }
  const reader = new ReadableStream({ type: "bytes" }).getReader({ mode: "byob" });
  // The read stays pending, because nothing is enqueued, or it rejects because the buffer is
  // pinned.
  void Promise.allSettled([reader.read(new Uint8Array(buffer))]);
  return buffer.detached;
}

/**
 * True if all bytes are zero: compares the first word with zero, then each byte with its neighbour,
 * at memory speed.
 */
export function isZero(address: number, lengthBytes: number): boolean {
  return (
    libc.memcmp(address, zeroAddress, 8) === 0 &&
    libc.memcmp(address, address + 8, lengthBytes - 8) === 0
  );
}

export function copyMemory(destination: number, source: number, lengthBytes: number): void {
  libc.memcpy(destination, source, lengthBytes);
}

export function fillMemory(address: number, byte: number, lengthBytes: number): void {
  libc.memset(address, byte, lengthBytes);
}

export function zeroMemory(address: number, lengthBytes: number): void {
  libc.memset(address, 0, lengthBytes);
}

const zeroAddress = isUsable ? mapAnonymous(SYSTEM_PAGE_SIZE) : 0;

/**
 * The address of a view over an ArrayBuffer of its own. (The collector may move a small typed array
 * without one.)
 */
export function addressOf(view: ArrayBufferView): number {
  return ptr(view as never) as number;
}
