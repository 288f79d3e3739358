/**
 * Writes the contents of used pages to a sink, for saves of all formats. Threads do the work
 * (write-task.ts). This file starts, watches and stops them.
 */
import type { Compression } from "../codec/codec.ts";
import { fileStatus } from "../../ffi/index.ts";
import { Overlay } from "../memory/overlay.ts";
import { HUGE_PAGE_SIZE, PAGE_SIZE } from "../pages/units.ts";
import { runInThread } from "../threads/pool.ts";
import { FullUnits } from "./data-finder.ts";
import type { SaveProgress } from "./options.ts";
import { createFrames, type FrameRows, openFrames } from "./save-table.ts";
import type { SinkDescription } from "./sink.ts";
import { listWork, type WorkList } from "./work-list.ts";
import { createWriteHandle, openWriteHandle, stopWriting, WriteWord } from "./write-state.ts";
import type { WriteSource, WriteTask } from "./write-task.ts";

export interface WriteOptions {
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: SaveProgress) => void) | undefined;
}

export interface WritePlan {
  readonly sources: readonly WriteSource[];
  readonly hashSeed: number;
  readonly compression: Compression;
  /** True to move pages that are stored as the table says, instead of storing those that differ. */
  readonly isMove: boolean;
  /** The number of the first frame that is written. */
  readonly firstFrame: number;
  /** Bytes of the page file that have been written before. */
  readonly writtenBytes: number;
  readonly sink: SinkDescription;
  /** Page contents that earlier passes of the save have written. */
  readonly progressBytes: number;
}

export interface WriteResult {
  readonly frames: FrameRows;
  readonly frameCount: number;
  /** Bytes of the page file. */
  readonly writtenBytes: number;
  /** Pages whose contents were written. */
  readonly writtenPages: number;
  /** Pages that had memory, but only zeros. */
  readonly zeroPages: number;
  /** Pages whose contents the base has. */
  readonly reusedPages: number;
}

const PROGRESS_INTERVAL_MS = 50;
/** Two writes in flight do not fill the measured disk (1.8 GiB/s direct); three or four do. */
const MAX_THREADS = 4;
const TICKET_BYTES = HUGE_PAGE_SIZE;
const MAX_TICKET_ENTRIES = 64;

/** The most bytes that the used pages of a file can hold now. */
export function mostBytesOf({
  fd,
  base,
  length,
  address,
  overlay,
}: Pick<WriteSource, "fd" | "base" | "length" | "address" | "overlay">): number {
  const pages = length.reduce((sum, count) => sum + count, 0);
  if (address !== null) return pages * PAGE_SIZE;
  const mapped = overlay === null ? 0 : new Overlay(overlay, { fd, base }).pages;
  return Math.min(pages * PAGE_SIZE, fileStatus(fd).allocatedBytes + mapped * PAGE_SIZE);
}

/**
 * Stores the pages that differ from the save table, and enters their places.
 * @throws {SyscallError} or the error of the signal or onProgress; the page file is useless then
 */
export async function writeUsedPages(plan: WritePlan, options: WriteOptions): Promise<WriteResult> {
  options.signal?.throwIfAborted();
  const work = listWork(plan.sources);
  const entries = work.unit.length;
  const mostBytes = plan.sources.reduce((sum, source) => sum + mostBytesOf(source), 0);
  const frames = createFrames(entries);
  const handle = createWriteHandle(plan.writtenBytes);
  const task: WriteTask = {
    sources: plan.sources,
    work,
    ticketEntries: ticketEntries(work, mostBytes),
    handle,
    fullUnits: plan.sources.map(({ start, length }) =>
      FullUnits.create((start.at(-1) ?? 0) + (length.at(-1) ?? 0)),
    ),
    frames,
    firstFrame: plan.firstFrame,
    hashSeed: plan.hashSeed,
    compression: plan.compression,
    isMove: plan.isMove,
    sink: plan.sink,
  };
  const { words, reservedBytes } = openWriteHandle(handle);
  await runThreads(task, words, { ...plan, mostBytes }, options);
  return {
    frames: openFrames(frames),
    frameCount: words[WriteWord.FrameCount]!,
    writtenBytes: reservedBytes[0]!,
    writtenPages: words[WriteWord.WrittenPages]!,
    zeroPages: words[WriteWord.ZeroPages]!,
    reusedPages: words[WriteWord.ReusedPages]!,
  };
}

/** The number of units that makes a ticket about one large write, if memory is dense. */
function ticketEntries({ unit }: WorkList, mostBytes: number): number {
  const ideal = Math.round((unit.length * TICKET_BYTES) / Math.max(1, mostBytes));
  return Math.max(1, Math.min(MAX_TICKET_ENTRIES, ideal));
}

async function runThreads(
  task: WriteTask,
  words: Int32Array,
  { mostBytes, progressBytes }: WritePlan & { readonly mostBytes: number },
  { signal, onProgress }: WriteOptions,
): Promise<void> {
  let failure: { readonly error: unknown } | undefined;
  const fail = (error: unknown) => {
    failure ??= { error };
    stopWriting(words);
  };
  const onAbort = () => fail(signal?.reason);
  const report = () => {
    const bytes = (word: number) => Atomics.load(words, word) * PAGE_SIZE;
    const writtenBytes = progressBytes + bytes(WriteWord.WrittenPages);
    const left =
      progressBytes + mostBytes - bytes(WriteWord.ZeroPages) - bytes(WriteWord.ReusedPages);
    const totalBytes = Math.max(writtenBytes, left);
    try {
      onProgress?.({ writtenBytes, totalBytes });
    } catch (error) {
      fail(error);
    }
  };
  signal?.addEventListener("abort", onAbort, { once: true });
  const timer = onProgress === undefined ? undefined : setInterval(report, PROGRESS_INTERVAL_MS);
  const tickets = Math.ceil(task.work.unit.length / task.ticketEntries);
  const wanted = Math.ceil(mostBytes / (2 * TICKET_BYTES));
  const threads = Math.min(MAX_THREADS, tickets, Math.max(1, wanted));
  // The reserving thread may die, and the others must not wait for it.
  const runOne = () => runInThread("save.write", task).done.catch(fail);
  try {
    // All threads must have left the memory and the file before either is closed.
    await Promise.all(Array.from({ length: threads }, runOne));
  } finally {
    clearInterval(timer);
    signal?.removeEventListener("abort", onAbort);
  }
  if (failure !== undefined) throw failure.error;
}
