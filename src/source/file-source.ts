/**
 * FileSource: contents in local files, read through the page cache, past it, or over io_uring.
 *
 * Its descriptors belong to the process: readers of all threads share them. Several loads may share
 * a source (the files of one checkpoint do). Each load holds it once, and releases it when it needs
 * no contents any more; the last release closes the descriptors. If the thread that runs a load
 * dies, the thread that takes the load over releases in its place.
 *
 * How to read is chosen by what is in the page cache: cached contents are copied fastest by several
 * threads. Other contents come from the device, where io_uring with O_DIRECT needs a fraction of a
 * processor and no second copy in the page cache.
 */
import {
  closeFile,
  duplicateFile,
  reopenDirect,
  residentFraction,
  SyscallError,
  uringUnavailable,
} from "../../ffi/index.ts";
import { InlineQueue } from "../aio/inline-queue.ts";
import { UringUnavailableError } from "../aio/queue.ts";
import { type RingRegistry, UringQueue } from "../aio/uring-queue.ts";
import { HUGE_PAGE_SIZE } from "../pages/units.ts";
import { QueueReader } from "./queue-reader.ts";
import type { FileContent, FileSource } from "./description.ts";
import type { ReaderUse, SourceReader } from "./reader.ts";

/** The queue by which a load reads, as the program asked for it. */
export type LoadQueue = "auto" | "workers" | "uring" | "inline";

/** Units in flight over io_uring: 16 MiB a thread, more than measured devices gain from. */
export const URING_DEPTH_MAX = 8;
/**
 * Inline, contents are checked piece by piece while the processor has them in its cache: to read
 * and check 2 MiB takes 508 us at once and 427 to 454 in pieces of this size (two threads, page
 * cache hot). Contents from a device do not pass through that cache.
 */
export const INLINE_READ_BYTES = 512 * 1024;
/** Fewer bytes are read before io_uring could save any time. */
export const URING_BYTES_MIN = 8 * HUGE_PAGE_SIZE;
/** A file with a smaller part of its samples in the page cache is cold. */
const HOT_FRACTION = 0.5;
const SAMPLES = 64;

/** Takes over open files, held once. Content i is `files[i]`. */
export function fileSource(files: readonly { fd: number; path: string }[]): FileSource {
  const holders = new SharedArrayBuffer(4);
  new Int32Array(holders)[0] = 1;
  const contents = files.map(({ fd, path }) => ({ fd, path, directFd: -1 }));
  return { kind: "file", contents, engine: "cache", holders };
}

/** A source of duplicates of these descriptors, held once. @throws {SyscallError} with none open */
export function duplicateFiles(files: readonly { fd: number; path: string }[]): FileSource {
  const opened: { fd: number; path: string }[] = [];
  try {
    for (const { fd, path } of files) opened.push({ fd: fd < 0 ? -1 : duplicateFile(fd), path });
  } catch (error) {
    for (const { fd } of opened) if (fd >= 0) closeFile(fd);
    throw error;
  }
  return fileSource(opened);
}

/** One load more holds the source. Precondition: a load holds it. */
export function holdFiles({ holders }: FileSource): void {
  Atomics.add(new Int32Array(holders), 0, 1);
}

/** Ends one hold. The last one closes the files. */
export function releaseFiles({ holders, contents }: FileSource): void {
  if (Atomics.sub(new Int32Array(holders), 0, 1) !== 1) return;
  for (const { fd, directFd } of contents) {
    if (fd >= 0) closeFile(fd);
    if (directFd >= 0) closeFile(directFd);
  }
}

/** The reads of a load, as far as the choice of an engine needs them. */
export interface PlannedReads {
  /** Bytes that are to be read, counted up to URING_BYTES_MIN. */
  readonly bytes: number;
  /** True if all reads may be multiples of the page size. */
  readonly isAligned: boolean;
}

/**
 * The source, to be read in the best way; it replaces the one given. Precondition: if the queue is
 * "uring", io_uring is available (core/options.ts).
 *
 * @throws {SyscallError} with the source as it was
 */
export function chooseEngine(
  source: FileSource,
  queue: "auto" | "uring",
  { bytes, isAligned }: PlannedReads,
): FileSource {
  if (queue === "auto" && (bytes < URING_BYTES_MIN || uringUnavailable() !== null)) return source;
  const isCold = isAligned && isMostlyCold(source);
  // Through the page cache, with contents missing there, threads are as fast and use less.
  if (queue === "auto" && !isCold) return source;
  const direct = isCold ? openDirect(source.contents) : source.contents;
  const hasDirect = direct.some(({ directFd }) => directFd >= 0);
  if (queue === "auto" && !hasDirect) return source;
  return { ...source, contents: direct, engine: "uring" };
}

/**
 * True if most contents of page files are not in the page cache. The manifest does not count,
 * because it is read only once.
 */
function isMostlyCold({ contents }: FileSource): boolean {
  const fractions = contents
    .slice(1)
    .filter(({ fd }) => fd >= 0)
    .map(({ fd }) => residentFraction(fd, SAMPLES));
  const sum = fractions.reduce((total, fraction) => total + fraction, 0);
  return fractions.length > 0 && sum < HOT_FRACTION * fractions.length;
}

function openDirect(contents: readonly FileContent[]): FileContent[] {
  return contents.map((content, i) =>
    i === 0 || content.fd < 0 ? content : { ...content, directFd: reopenDirect(content.fd) },
  );
}

/** True if reads go past the page cache. */
export function isDirect({ contents }: FileSource): boolean {
  return contents.some(({ directFd }) => directFd >= 0);
}

/**
 * Opens the files for one thread. Reads on demand go through the page cache, so that neighbours of
 * a page cost nothing later. Without a ring, background reads go there too.
 */
export function openFileReader(
  { contents, engine }: FileSource,
  use: ReaderUse,
  rings: RingRegistry | undefined,
): SourceReader {
  if (use === "background" && engine === "uring") {
    const queue = tryUring(rings);
    if (queue !== undefined) {
      const options = { isDirect: true, readBytesMax: HUGE_PAGE_SIZE };
      return new QueueReader(queue, contents, options);
    }
  }
  const options = { isDirect: false, readBytesMax: INLINE_READ_BYTES };
  return new QueueReader(new InlineQueue(1), contents, options);
}

/** Undefined if the kernel, or the table of rings, has no room for another one. */
function tryUring(rings: RingRegistry | undefined): UringQueue | undefined {
  try {
    return new UringQueue(URING_DEPTH_MAX, rings);
  } catch (error) {
    if (error instanceof UringUnavailableError || error instanceof SyscallError) return undefined;
    throw error;
  }
}
