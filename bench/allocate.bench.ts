/**
 * Free + allocate: drops a random live range of 1 to 64 pages and allocates another length in its
 * place; nothing is committed.
 *
 * `nsPerPair` is the loop. `nsPerPairSettled` continues until all dropped pages are released, so
 * that no work is left over. `firstNsPerPair` is the first trace of the process, compiled while it
 * runs. The hash covers the placement of every range if each release is awaited: plain first fit,
 * the same as gVisor's.
 */
import { measure } from "mitata";
import { syscallCounts } from "../ffi/index.ts";
import { type FileRange, MemoryFile, PAGE_SIZE } from "../src/index.ts";
import { countObjects } from "./support/objects.ts";
import {
  type Bench,
  budget,
  main,
  number,
  type Params,
  type Run,
  type Sample,
} from "./support/bench.ts";
import { makeTrace, type Trace, WordHash } from "./support/trace.ts";

const HASH_OPS = 20_000;
const OBJECT_OPS = 1_000;

export const bench: Bench = {
  subject: "allocate",
  title: "free + allocate pair, 1 to 64 pages, uncommitted",
  cases: ({ isSmoke }) =>
    (isSmoke ? [100, 1_000] : [100, 10_000, 100_000]).map((live) => ({
      live,
      ops: isSmoke ? 2_000 : 200_000,
    })),
  measure: sample,
  gvisor: {
    arguments: ({ live, ops }) => ["alloc", "-live", `${live}`, "-ops", `${ops}`, "-rounds", "1"],
    hash: async ({ live }, _run, peer) => {
      const { resultHash } = await peer([
        "alloc",
        "-live",
        `${live}`,
        "-ops",
        `${HASH_OPS}`,
        "-settle",
        "-rounds",
        "1",
      ]);
      return String(resultHash);
    },
  },
};

async function sample(params: Params, run: Run): Promise<Sample> {
  const live = number(params, "live");
  const ops = number(params, "ops");
  // It is the same in every round, so once is enough.
  const hash = run.seed === 1 ? await placementHash(makeTrace(live, HASH_OPS, 1, true)) : null;
  const trace = makeTrace(live, ops, 1, true);
  using file = MemoryFile.create({ name: "bench" });
  const ranges = fill(file, trace);

  const startedAt = Bun.nanoseconds();
  replay(file, ranges, trace);
  const firstNs = Bun.nanoseconds() - startedAt;
  const loop = await measure(() => replay(file, ranges, trace), budget(run));

  await file.released();
  const calls = callsSoFar();
  let traces = 0;
  const cpu = process.cpuUsage();
  const settled = await measure(async () => {
    replay(file, ranges, trace);
    await file.released();
    traces++;
  }, budget(run));
  const { user, system } = process.cpuUsage(cpu);
  return {
    figures: {
      nsPerPair: loop.avg / ops,
      nsPerPairSettled: settled.avg / ops,
      cpuNsPerPair: ((user + system) * 1000) / traces / ops,
      firstNsPerPair: firstNs / ops,
      objectsPerPair: countObjects(() => replay(file, ranges, trace, OBJECT_OPS)) / OBJECT_OPS,
      syscallsPerPair: (callsSoFar() - calls) / traces / ops,
      totalSizeBytes: file.totalSizeBytes,
    },
    hash,
    traceHash: trace.hash,
  };
}

function callsSoFar(): number {
  return Object.values(syscallCounts).reduce((sum, count) => sum + count, 0);
}

function fill(file: MemoryFile, trace: Trace): FileRange[] {
  return Array.from(trace.fill, (pages) => file.allocate(pages * PAGE_SIZE));
}

function replay(
  file: MemoryFile,
  ranges: FileRange[],
  { slots, pages }: Trace,
  ops = slots.length,
): void {
  for (let i = 0; i < ops; i++) {
    const slot = slots[i]!;
    file.decRef(ranges[slot]!);
    ranges[slot] = file.allocate(pages[i]! * PAGE_SIZE);
  }
}

async function placementHash(trace: Trace): Promise<string> {
  using file = MemoryFile.create({ name: "bench" });
  const hash = new WordHash();
  const ranges = fill(file, trace);
  for (const range of ranges) hash.add(range.start / PAGE_SIZE);
  for (let i = 0; i < trace.slots.length; i++) {
    file.decRef(ranges[trace.slots[i]!]!);
    await file.released();
    const range = file.allocate(trace.pages[i]! * PAGE_SIZE);
    ranges[trace.slots[i]!] = range;
    hash.add(range.start / PAGE_SIZE);
  }
  return hash.toString();
}

if (import.meta.main) await main(bench);
