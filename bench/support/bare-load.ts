/**
 * What a load of a dense image costs in system calls alone: two threads make each 2 MiB of fresh memory a huge page and read into it.
 * No metadata, no checksums, nobody who waits: a load through the page cache is not faster on the same machine.
 */
import {
  bufferAt,
  createMemoryFd,
  MADV_COLLAPSE,
  MADV_POPULATE_WRITE,
  mapFileAt,
  O_RDONLY,
  openFile,
  readAt,
  reserve,
  SYSTEM_PAGE_SIZE,
  truncateFile,
  tryAdvise,
} from "../../ffi/index.ts";
import { HUGE_PAGE_SIZE } from "../../src/units.ts";

interface Task {
  readonly fd: number;
  readonly base: number;
  readonly lengthBytes: number;
  /** The next block that nobody has taken. */
  readonly next: Int32Array;
}

/** @throws {Error} if the file ends early */
function readBlocks({ fd, base, lengthBytes, next }: Task): void {
  for (let at = 0; ; ) {
    at = Atomics.add(next, 0, 1) * HUGE_PAGE_SIZE;
    if (at >= lengthBytes) return;
    if (tryAdvise(base + at, SYSTEM_PAGE_SIZE, MADV_POPULATE_WRITE) === 0) tryAdvise(base + at, HUGE_PAGE_SIZE, MADV_COLLAPSE);
    const bytes = Math.min(HUGE_PAGE_SIZE, lengthBytes - at);
    if (readAt(fd, base + at, bytes, at) !== bytes) throw new Error(`Expected ${bytes} bytes at ${at}`);
  }
}

/** The contents of a file, in memory that lasts as long as the process. */
export async function loadBare(path: string, lengthBytes: number): Promise<Uint8Array> {
  const roundedBytes = Math.ceil(lengthBytes / HUGE_PAGE_SIZE) * HUGE_PAGE_SIZE;
  const memory = createMemoryFd("bare-load");
  truncateFile(memory, roundedBytes);
  const base = reserve(roundedBytes, HUGE_PAGE_SIZE);
  mapFileAt(base, roundedBytes, memory, 0);
  const next = new Int32Array(new SharedArrayBuffer(4));
  const task: Task = { fd: openFile(path, O_RDONLY), base, lengthBytes, next };
  const worker = new Worker(new URL(import.meta.url));
  const { promise: finished, resolve, reject } = Promise.withResolvers<void>();
  worker.addEventListener("message", () => resolve());
  worker.addEventListener("error", ({ message }) => reject(new Error(message)));
  worker.postMessage(task);
  readBlocks(task);
  await finished;
  worker.terminate();
  return new Uint8Array(bufferAt(base, lengthBytes));
}

const scope = globalThis as unknown as {
  onmessage: ((event: { data: Task }) => void) | null;
  postMessage(message: unknown): void;
};
if (!Bun.isMainThread) {
  scope.onmessage = ({ data }) => {
    readBlocks(data);
    scope.postMessage("finished");
  };
}
