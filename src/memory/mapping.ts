/**
 * The memory behind a MemoryFile: a memory file (or a file on disk), and one stretch of reserved
 * address space into which its chunks are mapped, in order. They never move, so address = base +
 * byte offset in every thread of the process.
 *
 * gVisor maps each chunk wherever the kernel chooses. With one stretch, a range that crosses a
 * chunk border is one view. The stretch is aligned to huge pages, which the kernel does not do for
 * a reservation.
 */
import {
  allocateRange,
  closeFile,
  fileStatus,
  isRefused,
  MADV_DONTDUMP,
  MADV_HUGEPAGE,
  MADV_NOHUGEPAGE,
  MADV_POPULATE_WRITE,
  mapAnonymousAt,
  mapFileAt,
  punchHole,
  reserve,
  reserveAt,
  SyscallError,
  seekData,
  truncateFile,
  tryAdvise,
  unmap,
  writeZeros,
  zeroMemory,
} from "../../ffi/index.ts";
import { assert } from "../errors/errors.ts";
import { CHUNK_SIZE, HUGE_PAGE_SIZE, PAGE_SIZE } from "../pages/units.ts";
import type { Overlay } from "./overlay.ts";
import { openAnonymous, openOnDisk } from "./backing-file.ts";

export interface MappingOptions {
  readonly name: string;
  /** A file on disk instead of anonymous memory, and its permissions if it is created. */
  readonly path: string | undefined;
  readonly mode: number;
  readonly adviseHugepage: boolean;
  readonly adviseNoHugepage: boolean;
  /** Address space to reserve. */
  readonly capacityBytes: number;
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

  /** @throws {PathInUseError} {NotMemoryError} {SyscallError} with nothing left open */
  static create(options: MappingOptions): Mapping {
    const { path, capacityBytes } = options;
    const fd = path === undefined ? openAnonymous(options.name) : openOnDisk(path, options.mode);
    try {
      return new Mapping(fd, reserve(capacityBytes, HUGE_PAGE_SIZE), capacityBytes, options);
    } catch (error) {
      closeFile(fd);
      throw error;
    }
  }

  /**
   * Makes the file larger by whole chunks and maps them. @throws {SyscallError} with nothing mapped
   */
  grow(sizeBytes: number, chunks: number, huge: boolean): void {
    const lengthBytes = chunks * CHUNK_SIZE;
    // Mapping over other memory of the process would replace it.
    assert(
      chunks > 0 && sizeBytes % CHUNK_SIZE === 0 && sizeBytes + lengthBytes <= this.capacityBytes,
      () => `${chunks} chunks after ${sizeBytes} of ${this.capacityBytes} bytes`,
    );
    // A sealed file cannot shrink again if mapping fails. A larger file without a mapping does no
    // harm.
    this.truncate(sizeBytes + lengthBytes);
    const address = this.base + sizeBytes;
    try {
      mapFileAt(address, lengthBytes, this.fd, sizeBytes);
    } catch (error) {
      reserveAt(address, lengthBytes);
      throw error;
    }
    // If the kernel refuses the advice, only speed and core dumps change.
    if (huge && this.adviseHugepage) tryAdvise(address, lengthBytes, MADV_HUGEPAGE);
    if (!huge && this.adviseNoHugepage) tryAdvise(address, lengthBytes, MADV_NOHUGEPAGE);
    tryAdvise(address, lengthBytes, MADV_DONTDUMP);
  }

  private truncate(lengthBytes: number): void {
    try {
      truncateFile(this.fd, lengthBytes);
    } catch (error) {
      if (!(error instanceof SyscallError) || error.code !== "EFBIG") throw error;
      const detail = `${lengthBytes} bytes are more than the largest file allowed (ulimit -f)`;
      throw new SyscallError("ftruncate", -error.errno, undefined, detail);
    }
  }

  /**
   * Makes the kernel allocate the bytes now. They read as zero. SEEK_DATA may not show them before
   * they are touched. @throws {SyscallError}, for example ENOSPC
   */
  commit(start: number, end: number): void {
    try {
      allocateRange(this.fd, start, end - start);
    } catch (error) {
      if (!(error instanceof SyscallError) || !isRefused(error)) throw error;
      writeZeros(this.fd, start, end - start);
    }
  }

  /**
   * Makes the kernel allocate the bytes and this process's page table entries for them. Returns
   * false if it only allocated them, as `commit` does. @throws {SyscallError}
   */
  populate(start: number, end: number): boolean {
    const errno = tryAdvise(this.base + start, end - start, MADV_POPULATE_WRITE);
    if (errno === 0) return true;
    const error = new SyscallError("madvise", errno);
    if (!isRefused(error)) throw error;
    // Before Linux 5.14. The first touch fills the page tables, and cannot fail any more.
    this.commit(start, end);
    return false;
  }

  /**
   * The first byte at or after `start` whose page has been touched, rounded down to a page; the
   * capacity if there is none. It misses pages that were allocated but never touched.
   */
  nextData(start: number): number {
    try {
      const data = seekData(this.fd, start);
      return data < 0 ? this.capacityBytes : data - (data % PAGE_SIZE);
    } catch (error) {
      if (!(error instanceof SyscallError)) throw error;
      // Unknown: there may be data at `start`.
      return start;
    }
  }

  /** Pages that are mapped from page files; null unless the file was restored so. */
  overlay: Overlay | null = null;

  /** The most bytes that have memory: committed, or mapped from page files. */
  get memoryBytes(): number {
    return fileStatus(this.fd).allocatedBytes + (this.overlay?.pages ?? 0) * PAGE_SIZE;
  }

  /** For the tracking of changes, which does not see holes. Called around each decommit. */
  onDecommit: (start: number, end: number) => void = () => {};

  /**
   * Returns the bytes to the kernel; they read as zero. Writes zeros if the file system cannot make
   * holes.
   */
  decommit(start: number, end: number): void {
    assert(
      start % PAGE_SIZE === 0 && end % PAGE_SIZE === 0 && start < end && end <= this.capacityBytes,
      () => `bytes [${start}, ${end}) to decommit of ${this.capacityBytes}`,
    );
    this.onDecommit(start, end);
    this.overlay?.release(start / PAGE_SIZE, end / PAGE_SIZE);
    try {
      punchHole(this.fd, start, end - start);
    } catch (error) {
      if (!(error instanceof SyscallError)) throw error;
      // Closing the file returns the memory itself.
      this.zero(start, end);
    }
    this.onDecommit(start, end);
  }

  zero(start: number, end: number): void {
    zeroMemory(this.base + start, end - start);
  }

  /**
   * Precondition: no thread has a view of the memory any more. The first `keepBytes` of address
   * space are kept, for buffers that may still refer to them: they become private memory that reads
   * as zero.
   */
  destroy(keepBytes: number): void {
    assert(keepBytes <= this.capacityBytes, () => `${keepBytes} bytes to keep of the mapping`);
    if (keepBytes > 0) mapAnonymousAt(this.base, keepBytes);
    if (keepBytes < this.capacityBytes)
      unmap(this.base + keepBytes, this.capacityBytes - keepBytes);
    closeFile(this.fd);
  }
}
