/**
 * The differential fuzzer: threads change one file at random while it is saved and loaded,
 * including huge pages, also with two owners. Each thread has a model of its own pages. At the end
 * the file and its checkpoint must equal all models together.
 *
 * The seed decides the choices of each thread. The machine decides how they interleave.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MemoryFile, type MemoryFileHandle, PAGE_SIZE } from "../../../src/index.ts";

/** A mailbox of each thread: state (0 empty, 1 being filled, 2 full), first page, end, byte. */
export const MAILBOX_WORDS = 4;
export const FuzzWord = { Stop: 0, Mail: 4 } as const;

export interface FuzzOrder {
  readonly handle: MemoryFileHandle;
  readonly words: Int32Array;
  /** From 1 on: the byte that the thread writes. */
  readonly owner: number;
  readonly threads: number;
  readonly seed: number;
}

export interface FuzzReport {
  /** Pages of the thread and their bytes. */
  readonly pages: readonly (readonly [page: number, byte: number])[];
  readonly steps: number;
  readonly error?: string;
}

export interface FuzzResult {
  readonly steps: number;
  readonly saves: number;
  readonly pages: number;
}

/** @throws {Error} naming the difference */
export async function runFuzz({
  seed,
  threads,
  runMs,
}: {
  seed: number;
  threads: number;
  runMs: number;
}): Promise<FuzzResult> {
  const directory = mkdtempSync(join(tmpdir(), "pgalloc-fuzz-"));
  const words = new Int32Array(
    new SharedArrayBuffer(4 * (FuzzWord.Mail + threads * MAILBOX_WORDS)),
  );
  using file = MemoryFile.create({ expectHugepages: true });
  const workers: Worker[] = [];
  try {
    const reports = Array.from({ length: threads }, (_, i) => {
      const worker = new Worker(new URL("./fuzz-worker.ts", import.meta.url));
      workers.push(worker);
      const report = new Promise<FuzzReport>((resolve) => {
        worker.addEventListener("message", ({ data }) => resolve(data));
      });
      const order = { words, threads, owner: i + 1, seed: seed + i * 7919 };
      worker.postMessage({ ...order, handle: file.share() } satisfies FuzzOrder);
      return report;
    });
    let saves = 0;
    for (const until = performance.now() + runMs; performance.now() < until; saves++) {
      await file.saveTo(directory, { stopTimeoutMs: 30_000 });
      await requireUniform(directory);
    }
    Atomics.store(words, FuzzWord.Stop, 1);
    const model = modelOf(await Promise.all(reports), words, threads);
    const steps = (await Promise.all(reports)).reduce((sum, report) => sum + report.steps, 0);
    await file.released();
    requireModel(file, model);
    await file.saveTo(directory);
    using loaded = await MemoryFile.loadFrom(directory, { expectHugepages: true });
    requireModel(loaded, model);
    for (const page of model.keys()) file.decRef(rangeOf(page));
    await file.released();
    if (file.totalUsageBytes !== 0 || file.allocatedBytes !== 0)
      throw new Error(`Expected nothing to be left, got ${file}`);
    return { steps, saves, pages: model.size };
  } finally {
    for (const worker of workers) worker.terminate();
    rmSync(directory, { recursive: true });
  }
}

const rangeOf = (page: number) => ({ start: page * PAGE_SIZE, end: (page + 1) * PAGE_SIZE });

function modelOf(
  reports: readonly FuzzReport[],
  words: Int32Array,
  threads: number,
): Map<number, number> {
  const model = new Map<number, number>();
  const add = (page: number, byte: number) => {
    if (model.has(page)) throw new Error(`Page ${page} has two owners`);
    model.set(page, byte);
  };
  for (const { pages, error } of reports) {
    if (error !== undefined) throw new Error(error);
    for (const [page, byte] of pages) add(page, byte);
  }
  // Runs that were given and not received yet.
  for (let thread = 0; thread < threads; thread++) {
    const at = FuzzWord.Mail + thread * MAILBOX_WORDS;
    if (words[at] !== 2) continue;
    for (let page = words[at + 1]!; page < words[at + 2]!; page++) add(page, words[at + 3]!);
  }
  return model;
}

function requireModel(file: MemoryFile, model: ReadonlyMap<number, number>): void {
  if (file.allocatedBytes !== model.size * PAGE_SIZE)
    throw new Error(`Expected ${model.size} pages in use, got ${file.allocatedBytes / PAGE_SIZE}`);
  for (const [page, byte] of model) {
    const at = file.view(rangeOf(page)).findIndex((found) => found !== byte);
    if (at >= 0) throw new Error(`Page ${page} differs from the model at ${at}`);
  }
}

/**
 * A page is filled, given and decommitted as a whole within a turn of the event loop, and a save
 * shows one instant.
 */
async function requireUniform(directory: string): Promise<void> {
  using loaded = await MemoryFile.loadFrom(directory, { expectHugepages: true });
  for (const line of loaded.toString().split("\n")) {
    if (!line.includes(" used ")) continue;
    const [, start, end] = /^\[(\d+), (\d+)\)/.exec(line)!;
    for (let page = Number(start) / PAGE_SIZE; page < Number(end) / PAGE_SIZE; page++) {
      const view = loaded.view(rangeOf(page));
      if (view.some((byte) => byte !== view[0])) throw new Error(`Page ${page} is of two instants`);
    }
  }
}
