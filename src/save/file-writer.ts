/**
 * Writes page contents to a file: without the page cache if that is faster, in blocks allocated
 * ahead.
 */
import {
  allocateRange,
  EIO,
  SyscallError,
  setDirectIo,
  startWriteback,
  truncateFile,
  writeAt,
} from "../../ffi/index.ts";
import type { FileDescription, SinkWriter } from "./sink.ts";

/** Only the thread that reserves changes them, one at a time. */
export const FileField = {
  /** Bytes allocated so far. */
  AllocatedBytes: 0,
  /** The most that the file may need; 0: unknown, and nothing is allocated ahead. */
  MostBytes: 1,
  /** 1 once writes are direct, or cannot be. */
  IsDecided: 2,
} as const;
const FIELDS_BYTES = 24;

const EINVAL = 22;
/**
 * From this size on, writes bypass the page cache if the file system can do that:
 * docs/decisions/saving.md. A smaller checkpoint is written as fast either way, and may stay cached
 * for a start that follows soon.
 */
const DIRECT_BYTES = 64 * 1024 * 1024;
/**
 * Blocks are allocated ahead of the writes: otherwise direct writes that make the file longer run
 * one at a time (1.7 to 2.2 s instead of 1.5 to 1.8 for 2 GiB on ext4). In steps, so that a save
 * takes little more than it needs.
 */
const STEP_BYTES = 256 * 1024 * 1024;

/**
 * The description by which threads open the file. `mostBytes`: the most that it may need, if known.
 */
export function describeFile(fd: number, path: string, mostBytes: number): FileDescription {
  const allocation = new SharedArrayBuffer(FIELDS_BYTES);
  const fields = new Float64Array(allocation);
  if (mostBytes >= DIRECT_BYTES) {
    fields[FileField.IsDecided] = 1;
    if (setDirectIo(fd, true)) fields[FileField.MostBytes] = mostBytes;
  }
  return { kind: "file", fd, path, allocation };
}

export class FileWriter implements SinkWriter {
  readonly mayBlock = true;
  private readonly description: FileDescription;
  private readonly allocation: Float64Array | null;

  constructor(description: FileDescription) {
    this.description = description;
    const { allocation } = description;
    this.allocation = allocation === null ? null : new Float64Array(allocation);
  }

  reserve(endBytes: number): void {
    const { allocation } = this;
    if (allocation === null) return;
    if (endBytes >= DIRECT_BYTES && allocation[FileField.IsDecided] === 0) {
      // The save writes more than was known before, as on top of a base that has little of it.
      allocation[FileField.IsDecided] = 1;
      setDirectIo(this.description.fd, true);
    }
    if (endBytes <= allocation[FileField.AllocatedBytes]!) return;
    const start = allocation[FileField.AllocatedBytes]!;
    const mostBytes = allocation[FileField.MostBytes]!;
    if (start >= mostBytes) return;
    const end = Math.min(mostBytes, Math.max(endBytes, start + STEP_BYTES));
    const { fd } = this.description;
    try {
      allocateRange(fd, start, end - start);
      allocation[FileField.AllocatedBytes] = end;
    } catch (error) {
      if (!(error instanceof SyscallError)) throw error;
      // No room, or not supported. A part may have been allocated. Writing will show whether there
      // is room for the contents.
      allocation[FileField.MostBytes] = 0;
      truncateFile(fd, start);
    }
  }

  write(address: number, lengthBytes: number, offset: number): void {
    const { fd, path } = this.description;
    let written = writeAt(fd, address, lengthBytes, offset);
    if (written === -EINVAL) {
      // Direct I/O may require more alignment than pages have, or a short write ended at a place
      // from which it cannot continue.
      setDirectIo(fd, false);
      written = writeAt(fd, address, lengthBytes, offset);
    }
    if (written < 0) throw new SyscallError("pwrite", -written, path);
    if (written < lengthBytes)
      throw new SyscallError("pwrite", EIO, path, `wrote ${written} of ${lengthBytes} bytes`);
    startWriteback(fd, offset, lengthBytes);
  }

  close(): void {}
}
