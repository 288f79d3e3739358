/**
 * Costs and gains of several threads: `bun bench/threads.ts [--smoke]`. It prints
 *
 * - the lock, uncontended: its share of the free + allocate trace (seed 1,
 *   bench/peers/gvisor/README.md), measured with and without it in turns. Goal: at most 30 %.
 * - throughput of the same trace: 10,000 live ranges in one Worker, and in two at once on one file,
 *   each with half of them. Goal: two together are no slower than one. Also 20,000, which fit the
 *   caches less well: in one Worker, and in two with 10,000 each.
 * - how long other threads may have to wait: the longest critical sections with 131,072 runs.
 * - awaits of random pages during a restore: from the main thread, from a Worker, and from a Worker
 *   while the main thread computes. Goal: p99 of at most 3 ms for each.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { collectRuns } from "../src/save/collect.ts";
import { type FileRange, MemoryFile, PAGE_SIZE } from "../src/index.ts";
import { coreOf } from "../src/file/memory-file.ts";
import { describeMachine } from "./support/machine.ts";
import { median, percentile } from "./support/statistics.ts";
import { awaitPages, type Awaiter, replay, runInWorkers } from "./support/thread-work.ts";
import { makeTrace } from "./support/trace.ts";

const isSmoke = process.argv.includes("--smoke");
const LIVE = 10_000;
const OPS = isSmoke ? 2_000 : 200_000;
const ROUNDS = isSmoke ? 2 : 15;
const AWAITS = isSmoke ? 5 : 200;
const IMAGE_BYTES = isSmoke ? 2 ** 24 : 2 ** 30;
const RUNS = isSmoke ? 1_024 : 131_072;
const AWAITERS: Awaiter[] = [
  "main thread",
  "Worker",
  "Worker, main thread busy",
  "blocked Worker, main thread busy",
];

function fill(file: MemoryFile): FileRange[] {
  return Array.from(makeTrace(LIVE, 1, 1, true).fill, (pages) => file.allocate(pages * PAGE_SIZE));
}

/**
 * Nanoseconds of a pair with the lock and without it, in turns, so that both have the same machine.
 */
async function uncontended(): Promise<void> {
  const trace = makeTrace(LIVE, OPS, 1, true);
  const subjects = [true, false].map((locks) => {
    const file = MemoryFile.create({ name: "bench" });
    const { allocator } = coreOf(file);
    // A file that is not shared takes no lock.
    file.share();
    if (!locks) {
      // The rest of `lock`: this thread's own size.
      allocator.lock = () => undefined;
      allocator.unlock = () => undefined;
    }
    return { file, ranges: fill(file), samples: [] as number[] };
  });
  for (let round = 0; round < ROUNDS + 2; round++) {
    for (const { file, ranges, samples } of subjects) {
      const began = Bun.nanoseconds();
      replay(file, ranges, trace);
      if (round >= 2) samples.push((Bun.nanoseconds() - began) / OPS);
      await file.released();
    }
  }
  const [locked, unlocked] = subjects.map(({ samples }) => median(samples)) as [number, number];
  const ratios = subjects[0]!.samples.map((sample, i) => sample / subjects[1]!.samples[i]!);
  console.log(
    `lock, uncontended: ${locked.toFixed(0)} ns a pair with it, ${unlocked.toFixed(0)} without: ` +
      `${(100 * (median(ratios) - 1)).toFixed(0)}% on top (goal: at most 30%)`,
  );
  for (const { file } of subjects) file.destroy();
}

async function contended(): Promise<void> {
  const subjects = [
    { threads: 1, live: LIVE },
    { threads: 2, live: LIVE / 2 },
    { threads: 1, live: 2 * LIVE },
    { threads: 2, live: LIVE },
  ];
  const rates: number[][] = subjects.map(() => []);
  for (let round = 0; round < (isSmoke ? 1 : 9); round++) {
    for (const [i, subject] of subjects.entries()) {
      rates[i]!.push((await runInWorkers({ ...subject, ops: OPS, rounds: isSmoke ? 1 : 4 })) / 1e6);
    }
  }
  const ratio = (two: number, one: number) =>
    median(rates[two]!.map((rate, round) => rate / rates[one]![round]!)).toFixed(2);
  const [one, two, oneWithAll, twoWithAll] = rates.map((each) => median(each).toFixed(2));
  console.log(
    `throughput, ${LIVE} live ranges: ${one} million pairs/s by one Worker, ${two} by two in one ` +
      `file, ${ratio(1, 0)}× (goal: at ` +
      `least 1×); ${2 * LIVE} live ranges: ${oneWithAll} by one, ${twoWithAll} by two, ` +
      `${ratio(3, 2)}×, and ${ratio(3, 0)}× of one with ${LIVE}`,
  );
}

/**
 * The longest critical sections: they visit every run, and the main thread may have to wait that
 * long.
 */
function criticalSections(): void {
  using file = MemoryFile.create({ name: "bench" });
  const ranges = Array.from({ length: RUNS }, (_, i) => file.allocate(PAGE_SIZE, { group: i & 1 }));
  const { allocator } = coreOf(file);
  const time = (work: () => unknown) => {
    const samples = Array.from({ length: isSmoke ? 2 : 11 }, () => {
      const began = Bun.nanoseconds();
      work();
      return (Bun.nanoseconds() - began) / 1e6;
    });
    return `${median(samples).toFixed(2)} ms`;
  };
  const whole = { start: ranges[0]!.start, end: ranges.at(-1)!.end };
  const gather = () => {
    const runs: number[] = [];
    allocator.lock();
    allocator.visitRuns((start, end, state, huge, refs, kind, group) =>
      runs.push(start, end, state, +huge, refs, kind, group),
    );
    allocator.unlock();
  };
  console.log(
    `critical sections with ${RUNS} runs: toString's ${time(gather)}, a save's collection ` +
      `${time(() => collectRuns(allocator))}, incRef + decRef of all at once ${time(() => {
        file.incRef(whole);
        file.decRef(whole);
      })}`,
  );
}

async function awaits(): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), "pgalloc-bench-threads-"));
  try {
    const source = MemoryFile.create({ name: "bench" });
    const range = source.allocate(IMAGE_BYTES);
    const words = source.view(range, Uint32Array);
    for (let page = 0; page < IMAGE_BYTES / PAGE_SIZE; page++)
      words[(page * PAGE_SIZE) / 4] = page + 1;
    await source.saveTo(directory);
    source.destroy();
    const samples: number[][] = AWAITERS.map(() => []);
    for (let round = 0; round < (isSmoke ? 1 : 5); round++) {
      // In turns, so that each kind of thread has some of the process's first restores.
      for (const i of AWAITERS.keys()) {
        const at = (round + i) % AWAITERS.length;
        const file = await MemoryFile.loadFrom(directory, { background: true });
        samples[at]!.push(...(await awaitPages(AWAITERS[at]!, file, range, AWAITS, round + 1)));
        await file.awaitLoad();
        file.destroy();
      }
    }
    for (const [i, who] of AWAITERS.entries()) {
      if (samples[i]!.length === 0) {
        console.log(`awaits from the ${who}: none, all was loaded before the first`);
        continue;
      }
      const ms = (part: number) => (percentile(samples[i]!, part) / 1e6).toFixed(2);
      console.log(
        `awaits from the ${who}: p50 ${ms(0.5)} ms, p99 ${ms(0.99)} ms of ${samples[i]!.length} ` +
          "(goal: at most 3 ms)",
      );
    }
  } finally {
    rmSync(directory, { recursive: true });
  }
}

console.log(describeMachine([]));
await uncontended();
await contended();
criticalSections();
await awaits();
process.exit(0);
