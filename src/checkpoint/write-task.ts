/**
 * Writes page contents (threads/tasks.ts: "save.write"). Several threads take 2 MiB pieces of the pages file in turn; each piece is
 * copied to a buffer of the thread's own, checksummed there and written from there. The copy costs a tenth of the write
 * and makes the checksum that of the bytes written, even if the program changes the memory meanwhile.
 */
import { bufferAt, copyMemory, detach, mapAnonymous, SyscallError, unmap, writeAt } from "../../ffi/index.ts";
import { HUGE_PAGE_SIZE, PAGE_SIZE } from "../units.ts";
import { crc32 } from "./format.ts";

const PIECE_BYTES = HUGE_PAGE_SIZE;
const PIECE_PAGES = PIECE_BYTES / PAGE_SIZE;

/** Words that the writers share. */
export const WriteWord = { NextPiece: 0, Stop: 1, WrittenPages: 2 } as const;

export interface WriteTask {
  readonly fd: number;
  readonly path: string;
  readonly base: number;
  readonly start: Uint32Array;
  readonly length: Uint32Array;
  /** Int32 words, see WriteWord. */
  readonly words: SharedArrayBuffer;
  /** One u32 a page of the pages file: filled in by the writers. */
  readonly checksums: SharedArrayBuffer;
}

export function run(task: WriteTask): void {
  const words = new Int32Array(task.words);
  const checksums = new Uint32Array(task.checksums);
  const filePages = firstFilePages(task.length);
  const staging = mapAnonymous(PIECE_BYTES);
  const buffer = bufferAt(staging, PIECE_BYTES);
  try {
    while (Atomics.load(words, WriteWord.Stop) === 0) {
      const first = Atomics.add(words, WriteWord.NextPiece, 1) * PIECE_PAGES;
      if (first >= checksums.length) return;
      const count = Math.min(PIECE_PAGES, checksums.length - first);
      gather(task, filePages, staging, first, count);
      for (let i = 0; i < count; i++) checksums[first + i] = crc32(new Uint8Array(buffer, i * PAGE_SIZE, PAGE_SIZE));
      const written = writeAt(task.fd, staging, count * PAGE_SIZE, first * PAGE_SIZE);
      if (written < 0) throw new SyscallError("pwrite", -written, task.path);
      if (written < count * PAGE_SIZE)
        throw new SyscallError("pwrite", 5, task.path, `wrote ${written} of ${count * PAGE_SIZE} bytes`);
      Atomics.add(words, WriteWord.WrittenPages, count);
    }
  } catch (error) {
    Atomics.store(words, WriteWord.Stop, 1);
    throw error;
  } finally {
    detach(buffer);
    unmap(staging, PIECE_BYTES);
  }
}

/** The page of the pages file at which each extent's contents begin. */
function firstFilePages(length: Uint32Array): Uint32Array {
  const first = new Uint32Array(length.length);
  let sum = 0;
  for (let i = 0; i < length.length; i++) {
    first[i] = sum;
    sum += length[i]!;
  }
  return first;
}

/** Copies the contents of pages [first, first + count) of the pages file to `to`. */
function gather(task: WriteTask, filePages: Uint32Array, to: number, first: number, count: number): void {
  let low = 0;
  let high = filePages.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >>> 1;
    if (filePages[middle]! <= first) low = middle;
    else high = middle - 1;
  }
  let done = 0;
  for (let extent = low; done < count; extent++) {
    const skipped = first + done - filePages[extent]!;
    const pages = Math.min(task.length[extent]! - skipped, count - done);
    copyMemory(to + done * PAGE_SIZE, task.base + (task.start[extent]! + skipped) * PAGE_SIZE, pages * PAGE_SIZE);
    done += pages;
  }
}
