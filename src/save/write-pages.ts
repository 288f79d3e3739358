/**
 * Writes what the used pages of memory files hold to a pages file, one extent behind the other: all that saving has in
 * common between formats. Threads do it (write-task.ts); here they are started, watched, and stopped.
 */
import { fileStatus, setDirectIo } from "../../ffi/index.ts";
import { runInThread } from "../threads/pool.ts";
import { PAGE_SIZE } from "../pages/units.ts";
import {
  createWriteHandle,
  openWriteHandle,
  stopWriting,
  type WriteSource,
  type WriteState,
  WriteWord,
} from "./write-state.ts";
import { PIECE_BYTES, type WriteTask } from "./write-task.ts";

export interface WriteOptions {
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: SaveProgress) => void) | undefined;
}

/** Bytes of page contents. */
export interface SaveProgress {
  readonly writtenBytes: number;
  /** What there is to write at most; it gets smaller as zero pages are found, and is exact at the end. */
  readonly totalBytes: number;
}

/** A new file that page contents are written to, from its beginning; `path` is for error messages. */
export interface PagesTarget {
  readonly fd: number;
  readonly path: string;
}

export interface WrittenPages {
  /** Extents of each source, in pages of its file. Their contents follow one another, source after source. */
  readonly extents: readonly { readonly start: Uint32Array; readonly length: Uint32Array }[];
  /** CRC-32 of each page of the pages file. */
  readonly checksums: Uint32Array;
  /** Pages that had memory but only zeros in it. */
  readonly zeroPages: number;
}

const PROGRESS_INTERVAL_MS = 50;
/** As many writes in flight: two do not fill the disk measured here (1.8 GiB/s direct), three or four do. */
const MAX_THREADS = 4;
/**
 * From here on the page cache is left out, where the file system can do that. 2 GiB, synced, on a busy machine with 2 cores: 1.5
 * to 1.8 s direct, 2.0 to 8.5 s through the page cache, which doubles the memory in use just when there is much of it. Less
 * than this is written as fast either way, and may stay cached for a start that follows soon.
 */
const DIRECT_BYTES = 64 * 1024 * 1024;

/**
 * @param sources each with its used pages, ordered and disjoint
 * @throws {SyscallError} what the signal or onProgress threw; the file's contents are then of no use
 */
export async function writeUsedPages(
  sources: readonly WriteSource[],
  target: PagesTarget,
  options: WriteOptions,
): Promise<WrittenPages> {
  options.signal?.throwIfAborted();
  let usedPages = 0;
  let mostBytes = 0;
  for (const { fd, length } of sources) {
    const pages = length.reduce((sum, count) => sum + count, 0);
    usedPages += pages;
    mostBytes += Math.min(pages * PAGE_SIZE, fileStatus(fd).allocatedBytes);
  }
  const handle = createWriteHandle(sources.length, usedPages);
  const state = openWriteHandle(handle);
  const direct = mostBytes >= DIRECT_BYTES && setDirectIo(target.fd, true);
  const threads = Math.max(1, Math.min(MAX_THREADS, Math.ceil(mostBytes / (2 * PIECE_BYTES))));
  await runThreads(
    { ...target, sources, handle, allocateBytes: direct ? mostBytes : 0 },
    threads,
    state,
    mostBytes,
    options,
  );
  const { words } = state;
  const placed = words[WriteWord.PlacedPages]!;
  return {
    extents: sources.map((_, file) => extentsOf(state, file)),
    checksums: state.checksums.subarray(0, placed),
    zeroPages: words[WriteWord.ZeroPages]!,
  };
}

function extentsOf({ words, firstExtent, extentStart, extentLength }: WriteState, file: number) {
  const count = words[WriteWord.ExtentCount]!;
  const first = file <= words[WriteWord.PlacedFile]! ? firstExtent[file]! : count;
  const end = file < words[WriteWord.PlacedFile]! ? firstExtent[file + 1]! : count;
  return { start: extentStart.subarray(first, end), length: extentLength.subarray(first, end) };
}

async function runThreads(
  task: WriteTask,
  threads: number,
  { words }: WriteState,
  mostBytes: number,
  { signal, onProgress }: WriteOptions,
): Promise<void> {
  let failure: { readonly error: unknown } | undefined;
  const fail = (error: unknown) => {
    failure ??= { error };
    stopWriting(words);
  };
  const onAbort = () => fail(signal?.reason);
  const report = (isDone: boolean) => {
    const writtenBytes = Atomics.load(words, WriteWord.WrittenPages) * PAGE_SIZE;
    const zeroBytes = Atomics.load(words, WriteWord.ZeroPages) * PAGE_SIZE;
    const totalBytes = isDone ? writtenBytes : Math.max(writtenBytes, mostBytes - zeroBytes);
    try {
      onProgress?.({ writtenBytes, totalBytes });
    } catch (error) {
      fail(error);
    }
  };
  signal?.addEventListener("abort", onAbort, { once: true });
  const timer =
    onProgress === undefined ? undefined : setInterval(() => report(false), PROGRESS_INTERVAL_MS);
  // A thread that dies holds a baton perhaps: the others must not wait for it.
  const runOne = () => runInThread("save.write", task).done.catch(fail);
  try {
    // All must have left the memory and the file before anybody closes either.
    await Promise.all(Array.from({ length: threads }, runOne));
    if (failure === undefined) report(true);
  } finally {
    clearInterval(timer);
    signal?.removeEventListener("abort", onAbort);
  }
  if (failure !== undefined) throw failure.error;
}
