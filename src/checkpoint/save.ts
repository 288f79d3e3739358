/**
 * Saving: the allocator's runs at one instant, then scan, write and commit, all of it in threads. The program goes on; what
 * it writes to the memory meanwhile may or may not be in the checkpoint, page by page.
 */
import type { Allocator } from "../allocator/allocator.ts";
import { SUB_RELEASED, USED } from "../allocator/states.ts";
import { runInThread } from "../threads/pool.ts";
import { PAGE_SIZE, PAGES_PER_CHUNK } from "../units.ts";
import { CheckpointWriter } from "./directory.ts";
import { type CheckpointImage, encodeMeta } from "./format.ts";
import type { ScanResult, ScanTask } from "./scan-task.ts";
import { type WriteTask, WriteWord } from "./write-task.ts";

export interface SaveOptions {
  /** Stored beside the pages and given back as `userData`: the program's roots, its index. */
  readonly userData?: Uint8Array | undefined;
  /**
   * Accepted for gVisor's sake. Zero pages are never stored here, committed or not: finding them costs no I/O, and they
   * are told from others at memory speed.
   */
  readonly excludeCommittedZeroPages?: boolean | undefined;
  /** Ends the save; the directory is as it was. */
  readonly signal?: AbortSignal | undefined;
  /** Called now and then with bytes of page contents. What it throws ends the save. */
  readonly onProgress?: ((progress: { readonly writtenBytes: number; readonly totalBytes: number }) => void) | undefined;
}

/** What a save did; sizes in bytes. */
export interface SaveReport {
  readonly directory: string;
  readonly usedBytes: number;
  /** Page contents written. */
  readonly pagesBytes: number;
  /** Committed memory that held only zeros, and was not written. */
  readonly zeroBytes: number;
  readonly metaBytes: number;
  readonly extents: number;
  readonly durationMs: number;
}

const WRITER_THREADS = 3;
const PROGRESS_INTERVAL_MS = 50;

export interface SaveSource {
  readonly allocator: Allocator;
  readonly fd: number;
  readonly base: number;
}

export async function saveCheckpoint(source: SaveSource, directory: string, options: SaveOptions): Promise<SaveReport> {
  const startedAt = performance.now();
  const writer = new CheckpointWriter(directory);
  try {
    const runs = collectRuns(source.allocator);
    const used = selectUsed(runs.runs);
    const { scan, checksums } = await writeUsedPages(source, used, { fd: writer.pagesFd, path: writer.pagesPath }, options);
    const image: CheckpointImage = {
      ...runs,
      id: writer.id,
      pageSize: PAGE_SIZE,
      extents: { start: scan.start, length: scan.length },
      checksums,
      userData: options.userData ?? null,
    };
    const meta = encodeMeta(image);
    options.signal?.throwIfAborted();
    await writer.commit(meta);
    return {
      directory,
      usedBytes: used.length.reduce((sum, pages) => sum + pages, 0) * PAGE_SIZE,
      pagesBytes: checksums.length * PAGE_SIZE,
      zeroBytes: scan.zeroPages * PAGE_SIZE,
      metaBytes: meta.byteLength,
      extents: scan.start.length,
      durationMs: performance.now() - startedAt,
    };
  } finally {
    writer.close();
  }
}

/** The allocator's state as columns, at one instant. Pages without references are free in the checkpoint. */
export function collectRuns(allocator: Allocator): Pick<CheckpointImage, "chunkHuge" | "runs"> {
  const columns: number[][] = [[], [], [], [], [], []];
  allocator.lock();
  try {
    const chunkHuge = new Uint8Array(allocator.set.size / PAGES_PER_CHUNK);
    allocator.visitRuns((start, end, state, huge, refs, kind, group) => {
      if (huge) chunkHuge.fill(1, Math.floor(start / PAGES_PER_CHUNK), Math.ceil(end / PAGES_PER_CHUNK));
      if (state !== USED && state !== SUB_RELEASED) return;
      for (const [column, value] of [start, end - start, state, refs, kind, group].entries()) columns[column]!.push(value);
    });
    const [start, length, state, refs, kind, group] = columns.map((column) => Uint32Array.from(column)) as [
      Uint32Array,
      Uint32Array,
      Uint32Array,
      Uint32Array,
      Uint32Array,
      Uint32Array,
    ];
    return { chunkHuge, runs: { start, length, state, refs, kind, group } };
  } finally {
    allocator.unlock();
  }
}

function selectUsed(runs: CheckpointImage["runs"]): { start: Uint32Array; length: Uint32Array } {
  const isUsed = (_: number, i: number) => runs.state[i] === USED;
  return { start: runs.start.filter(isUsed), length: runs.length.filter(isUsed) };
}

/** A file that page contents are written to, from its beginning; `path` is for error messages. */
export interface PagesTarget {
  readonly fd: number;
  readonly path: string;
}

/**
 * Finds what the used pages hold and writes it, one extent behind the other: all that formats have in common.
 *
 * @param used ordered, disjoint runs of pages
 */
export async function writeUsedPages(
  source: Omit<SaveSource, "allocator">,
  used: { readonly start: Uint32Array; readonly length: Uint32Array },
  target: PagesTarget,
  options: Pick<SaveOptions, "signal" | "onProgress">,
): Promise<{ readonly scan: ScanResult; readonly checksums: Uint32Array }> {
  const task: ScanTask = { fd: source.fd, base: source.base, ...used };
  const scan = (await runInThread("save.scan", task).done) as ScanResult;
  options.signal?.throwIfAborted();
  return { scan, checksums: await writePages(source.base, target, scan, options) };
}

async function writePages(
  base: number,
  target: PagesTarget,
  scan: ScanResult,
  options: Pick<SaveOptions, "signal" | "onProgress">,
): Promise<Uint32Array> {
  const pages = scan.length.reduce((sum, count) => sum + count, 0);
  const words = new Int32Array(new SharedArrayBuffer(16));
  const checksums = new SharedArrayBuffer(4 * pages);
  const task: WriteTask = {
    fd: target.fd,
    path: target.path,
    base,
    start: scan.start,
    length: scan.length,
    words: words.buffer as SharedArrayBuffer,
    checksums,
  };
  let failure: { readonly error: unknown } | undefined;
  const fail = (error: unknown) => {
    failure ??= { error };
    Atomics.store(words, WriteWord.Stop, 1);
  };
  const onAbort = () => fail(options.signal?.reason);
  const report = () => {
    try {
      options.onProgress?.({
        writtenBytes: Atomics.load(words, WriteWord.WrittenPages) * PAGE_SIZE,
        totalBytes: pages * PAGE_SIZE,
      });
    } catch (error) {
      fail(error);
    }
  };
  options.signal?.addEventListener("abort", onAbort, { once: true });
  const timer = setInterval(report, PROGRESS_INTERVAL_MS);
  try {
    // All must have left the memory and the file before anybody closes either: allSettled, not all.
    const results = await Promise.allSettled(
      Array.from({ length: WRITER_THREADS }, () => runInThread("save.write", task).done),
    );
    for (const result of results) if (result.status === "rejected") fail(result.reason);
    if (failure === undefined) report();
  } finally {
    clearInterval(timer);
    options.signal?.removeEventListener("abort", onAbort);
  }
  if (failure !== undefined) throw failure.error;
  return new Uint32Array(checksums).slice();
}
