/**
 * The memory behind a MemoryFile: a memory file (or a file on disk) and one stretch of reserved address space into which
 * its chunks are mapped, in order, never moved. So address = base + byte offset, in every thread of the process.
 *
 * gVisor maps each chunk wherever the kernel likes; one stretch makes a range that crosses a chunk border one view, and
 * is aligned by us to huge pages, which the kernel does not do for a reservation.
 */
import {
  advise,
  allocateRange,
  closeFile,
  createMemoryFd,
  MADV_DONTDUMP,
  MADV_HUGEPAGE,
  MADV_NOHUGEPAGE,
  MADV_POPULATE_WRITE,
  mapAnonymousAt,
  mapFileAt,
  O_CREAT,
  O_NOFOLLOW,
  O_RDWR,
  O_TRUNC,
  openFile,
  punchHole,
  reserve,
  reserveAt,
  SyscallError,
  seekData,
  sealAgainstShrinking,
  truncateFile,
  tryAdvise,
  unmap,
  zeroMemory,
} from "../../ffi/index.ts";
import { assert } from "../errors/errors.ts";
import { CHUNK_SIZE, HUGE_PAGE_SIZE, PAGE_SIZE } from "../pages/units.ts";

const EINVAL = 22;

export interface MappingOptions {
  readonly name: string;
  /** A file on disk instead of memory; created or emptied. */
  readonly path: string | undefined;
  readonly adviseHugepage: boolean;
  readonly adviseNoHugepage: boolean;
}

export class Mapping {
  readonly fd: number;
  readonly base: number;
  readonly capacityBytes: number;
  private readonly adviseHugepage: boolean;
  private readonly adviseNoHugepage: boolean;

  /** Attaches to a mapping that another thread of this process made. */
  constructor(
    fd: number,
    base: number,
    capacityBytes: number,
    advice: { adviseHugepage: boolean; adviseNoHugepage: boolean },
  ) {
    this.fd = fd;
    this.base = base;
    this.capacityBytes = capacityBytes;
    this.adviseHugepage = advice.adviseHugepage;
    this.adviseNoHugepage = advice.adviseNoHugepage;
  }

  /** @throws {SyscallError} with nothing left open */
  static create(capacityBytes: number, options: MappingOptions): Mapping {
    const fd =
      options.path === undefined
        ? createMemoryFd(options.name)
        : openFile(options.path, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW, 0o600);
    try {
      if (options.path === undefined) sealAgainstShrinking(fd);
      return new Mapping(fd, reserve(capacityBytes, HUGE_PAGE_SIZE), capacityBytes, options);
    } catch (error) {
      closeFile(fd);
      throw error;
    }
  }

  /** Makes the file larger by whole chunks and maps them. @throws {SyscallError} with the file as before */
  grow(sizeBytes: number, chunks: number, huge: boolean): void {
    const lengthBytes = chunks * CHUNK_SIZE;
    // A sealed memory file cannot shrink again if mapping fails; its size without a mapping is no harm.
    truncateFile(this.fd, sizeBytes + lengthBytes);
    const address = this.base + sizeBytes;
    try {
      mapFileAt(address, lengthBytes, this.fd, sizeBytes);
      if (huge && this.adviseHugepage) advise(address, lengthBytes, MADV_HUGEPAGE);
      if (!huge && this.adviseNoHugepage) advise(address, lengthBytes, MADV_NOHUGEPAGE);
    } catch (error) {
      reserveAt(address, lengthBytes);
      throw error;
    }
    // Gigabytes of data in a core dump help nobody; a kernel that does not know the advice is fine.
    tryAdvise(address, lengthBytes, MADV_DONTDUMP);
  }

  /** Makes the kernel allocate the bytes now; SEEK_DATA does not show them before they are touched. @throws {SyscallError} ENOSPC, for instance */
  commit(start: number, end: number): void {
    allocateRange(this.fd, start, end - start);
  }

  /**
   * Makes the kernel allocate the bytes and this process's page table entries for them. False if it could only allocate
   * them, as `commit` does. @throws {SyscallError}
   */
  populate(start: number, end: number): boolean {
    const error = tryAdvise(this.base + start, end - start, MADV_POPULATE_WRITE);
    if (error === 0) return true;
    // Before Linux 5.14 there is no such advice; allocating is the part that can fail later otherwise.
    if (error !== EINVAL) throw new SyscallError("madvise", error);
    this.commit(start, end);
    return false;
  }

  /**
   * The first byte at or after `start` whose page has been touched, rounded down to a page; the capacity if there is none.
   * Pages that `commit` allocated and nobody touched are not seen.
   */
  nextData(start: number): number {
    try {
      const data = seekData(this.fd, start);
      return data < 0 ? this.capacityBytes : data - (data % PAGE_SIZE);
    } catch (error) {
      if (!(error instanceof SyscallError)) throw error;
      // Nothing is known: there may be data right here.
      return start;
    }
  }

  /** For the tracking of changes, which does not see holes: called before and after each decommit. */
  onDecommit: (start: number, end: number) => void = () => {};

  /**
   * Gives the bytes back to the kernel; they read as zero. Zeroes them by hand where the file system
   * cannot.
   */
  decommit(start: number, end: number): void {
    this.onDecommit(start, end);
    try {
      punchHole(this.fd, start, end - start);
    } catch (error) {
      if (!(error instanceof SyscallError)) throw error;
      // The promise is zeros; the memory itself comes back when the file goes.
      this.zero(start, end);
    }
    this.onDecommit(start, end);
  }

  zero(start: number, end: number): void {
    zeroMemory(this.base + start, end - start);
  }

  /**
   * Precondition: no view of the memory is left, in any thread. With `keepBytes` the first so many bytes of address space
   * are not given back, but become memory of nobody's, which reads as zero: something out of reach may still point there.
   */
  destroy(keepBytes: number): void {
    assert(keepBytes <= this.capacityBytes, () => `${keepBytes} bytes to keep of the mapping`);
    if (keepBytes > 0) mapAnonymousAt(this.base, keepBytes);
    if (keepBytes < this.capacityBytes)
      unmap(this.base + keepBytes, this.capacityBytes - keepBytes);
    closeFile(this.fd);
  }
}
