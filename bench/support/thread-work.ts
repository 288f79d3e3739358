/** The work that bench/threads.ts gives to Workers, and the parts that both sides share. */
import { FileRange, MemoryFile, type MemoryFileHandle, PAGE_SIZE } from "../../src/index.ts";
import { makeTrace, Random, type Trace } from "./trace.ts";

/** Milliseconds between two awaits while the load runs. */
const AWAIT_INTERVAL_MS = 1;

export type Work =
  | {
      readonly kind: "pairs";
      readonly live: number;
      readonly ops: number;
      readonly rounds: number;
      readonly start: Int32Array;
    }
  | {
      readonly kind: "awaits";
      readonly range: { readonly start: number; readonly end: number };
      readonly count: number;
      readonly seed: number;
      readonly blocking: boolean;
      readonly done: Int32Array;
    };

export type Awaiter =
  | "main thread"
  | "Worker"
  | "Worker, main thread busy"
  | "blocked Worker, main thread busy";

export function replay(file: MemoryFile, ranges: FileRange[], { slots, pages }: Trace): void {
  for (let i = 0; i < slots.length; i++) {
    const slot = slots[i]!;
    file.decRef(ranges[slot]!);
    ranges[slot] = file.allocate(pages[i]! * PAGE_SIZE);
  }
}

/** Pairs per second of all threads together, each with its own live ranges of one file. */
export async function runInWorkers(options: {
  threads: number;
  live: number;
  ops: number;
  rounds: number;
}): Promise<number> {
  const { threads, live, ops, rounds } = options;
  using file = MemoryFile.create({ name: "bench" });
  const start = new Int32Array(new SharedArrayBuffer(4));
  const workers = Array.from({ length: threads }, () =>
    startWorker(file, { kind: "pairs", live, ops, rounds, start }),
  );
  await Promise.all(workers.map(({ ready }) => ready));
  Atomics.store(start, 0, 1);
  Atomics.notify(start, 0);
  const seconds = (await Promise.all(workers.map(({ answer }) => answer))) as number[];
  for (const { worker } of workers) worker.terminate();
  return seconds.reduce((sum, each) => sum + (rounds * ops) / each, 0);
}

interface Started {
  readonly worker: Worker;
  readonly ready: Promise<void>;
  readonly answer: Promise<unknown>;
}

function startWorker(file: MemoryFile, work: Work): Started {
  const worker = new Worker(new URL("./thread-worker.ts", import.meta.url));
  const ready = Promise.withResolvers<void>();
  const answer = Promise.withResolvers<unknown>();
  worker.addEventListener("message", ({ data }: MessageEvent<unknown>) => {
    if (data === "ready") ready.resolve();
    else answer.resolve(data);
  });
  worker.addEventListener("error", ({ message }) => answer.reject(new Error(message)));
  worker.postMessage({ handle: file.share(), work });
  return { worker, ready: ready.promise, answer: answer.promise };
}

/** In the Worker: reports ready, waits for the others, and returns the seconds that it took. */
export function replayPairs(
  handle: MemoryFileHandle,
  work: Work & { kind: "pairs" },
  ready: () => void,
): number {
  const file = MemoryFile.attach(handle);
  const trace = makeTrace(work.live, work.ops, 1, true);
  const ranges = Array.from(trace.fill, (pages) => file.allocate(pages * PAGE_SIZE));
  replay(file, ranges, trace);
  ready();
  Atomics.wait(work.start, 0, 0);
  const began = Bun.nanoseconds();
  for (let round = 0; round < work.rounds; round++) replay(file, ranges, trace);
  return (Bun.nanoseconds() - began) / 1e9;
}

/**
 * Awaits random pages, one after another, while the file loads, and checks each. Returns
 * nanoseconds of each await.
 */
export async function awaitRandomPages(
  file: MemoryFile,
  work: Omit<Work & { kind: "awaits" }, "done">,
): Promise<number[]> {
  const { range, count, blocking } = work;
  const random = new Random(work.seed);
  const samples: number[] = [];
  while (samples.length < count && file.isLoading) {
    const page = random.below((range.end - range.start) / PAGE_SIZE);
    const start = range.start + page * PAGE_SIZE;
    const wanted = new FileRange(start, start + PAGE_SIZE);
    const began = Bun.nanoseconds();
    if (blocking) file.awaitLoadSync(wanted);
    else await file.awaitLoad(wanted);
    samples.push(Bun.nanoseconds() - began);
    const found = file.view(wanted, Uint32Array)[0];
    if (found !== page + 1) throw new Error(`Page ${page} has ${found}`);
    await Bun.sleep(AWAIT_INTERVAL_MS);
  }
  return samples;
}

export async function awaitPages(
  who: Awaiter,
  file: MemoryFile,
  range: FileRange,
  count: number,
  seed: number,
): Promise<number[]> {
  const { start, end } = range;
  const work = {
    kind: "awaits" as const,
    range: { start, end },
    count,
    seed,
    blocking: who.startsWith("blocked"),
  };
  if (who === "main thread") return await awaitRandomPages(file, work);
  const done = new Int32Array(new SharedArrayBuffer(4));
  const { worker, ready, answer } = startWorker(file, { ...work, done });
  await ready;
  // Busy wait: no turn of the event loop until the Worker is done.
  if (who.endsWith("busy")) for (let x = 0; Atomics.load(done, 0) === 0; x++) Math.sqrt(x);
  const samples = (await answer) as number[];
  worker.terminate();
  return samples;
}
