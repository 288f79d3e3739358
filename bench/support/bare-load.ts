/**
 * Measures only the system calls of a load of a dense image through the page cache: this thread and
 * a Worker make each 2 MiB of fresh memory a huge page and read into it. No metadata, no checksums,
 * no waiters. The Worker's start is part of the time.
 */
import {
  bufferAt,
  createMemoryFd,
  mapFileAt,
  O_RDONLY,
  openFile,
  readAt,
  reserve,
  truncateFile,
} from "../../ffi/index.ts";
import { makeHuge } from "../../src/load/huge-pages.ts";
import { HUGE_PAGE_SIZE } from "../../src/pages/units.ts";

/** The name of this contender. */
export const CALLS_ALONE = "system calls alone (2 threads)";

export interface BareLoad {
  readonly fd: number;
  readonly base: number;
  readonly lengthBytes: number;
  /** The next block that no thread has taken. */
  readonly next: Int32Array;
}

/** Reads the blocks that no other thread has taken. @throws {Error} if the file ends early */
export function readBlocks({ fd, base, lengthBytes, next }: BareLoad): void {
  const take = () => Atomics.add(next, 0, 1) * HUGE_PAGE_SIZE;
  for (let at = take(); at < lengthBytes; at = take()) {
    makeHuge(base + at);
    const bytes = Math.min(HUGE_PAGE_SIZE, lengthBytes - at);
    if (readAt(fd, base + at, bytes, at) !== bytes)
      throw new Error(`Expected ${bytes} bytes at ${at}`);
  }
}

/** Memory for the contents of a file of that many bytes. It lives as long as the process. */
export async function loadBare(path: string, lengthBytes: number): Promise<Uint8Array> {
  const roundedBytes = Math.ceil(lengthBytes / HUGE_PAGE_SIZE) * HUGE_PAGE_SIZE;
  const memory = createMemoryFd("bare-load");
  truncateFile(memory, roundedBytes);
  const base = reserve(roundedBytes, HUGE_PAGE_SIZE);
  mapFileAt(base, roundedBytes, memory, 0);
  const load: BareLoad = {
    fd: openFile(path, O_RDONLY),
    base,
    lengthBytes,
    next: new Int32Array(new SharedArrayBuffer(4)),
  };
  const worker = new Worker(new URL("./bare-load-worker.ts", import.meta.url));
  const { promise: finished, resolve, reject } = Promise.withResolvers<void>();
  worker.addEventListener("message", () => resolve());
  worker.addEventListener("error", ({ message }) => reject(new Error(message)));
  worker.postMessage(load);
  readBlocks(load);
  await finished;
  worker.terminate();
  return new Uint8Array(bufferAt(base, lengthBytes));
}
