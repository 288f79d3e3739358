/**
 * incRef + decRef of a random live range. "mixed": every second range has one more reference, so
 * each range is a run of its own. "plain": all have one reference, neighbours are one run, and
 * every pair splits it and joins it again.
 */
import { measure } from "mitata";
import { MemoryFile, PAGE_SIZE } from "../src/index.ts";
import {
  type Bench,
  budget,
  main,
  number,
  type Params,
  type Run,
  type Sample,
  text,
} from "./support/bench.ts";
import { countObjects } from "./support/objects.ts";
import { makeTrace, WordHash } from "./support/trace.ts";

const OBJECT_OPS = 1_000;

export const bench: Bench = {
  subject: "references",
  title: "incRef + decRef pair",
  cases: ({ isSmoke }) =>
    ["mixed", "plain"].flatMap((shape) =>
      (isSmoke ? [100] : [100, 10_000, 100_000]).map((live) => ({
        shape,
        live,
        ops: isSmoke ? 2_000 : 200_000,
      })),
    ),
  measure: sample,
  gvisor: {
    arguments: ({ shape, live, ops }) => [
      "refs",
      "-shape",
      `${shape}`,
      "-live",
      `${live}`,
      "-ops",
      `${ops}`,
      "-rounds",
      "1",
    ],
  },
};

async function sample(params: Params, run: Run): Promise<Sample> {
  const trace = makeTrace(number(params, "live"), number(params, "ops"), 1, false);
  using file = MemoryFile.create({ name: "bench" });
  const ranges = Array.from(trace.fill, (pages) => file.allocate(pages * PAGE_SIZE));
  if (text(params, "shape") === "mixed")
    for (let i = 1; i < ranges.length; i += 2) file.incRef(ranges[i]!);
  const before = file.dump();
  const { slots } = trace;
  const replay = (ops: number) => {
    for (let i = 0; i < ops; i++) {
      const range = ranges[slots[i]!]!;
      file.incRef(range);
      file.decRef(range);
    }
  };
  const { avg } = await measure(() => replay(slots.length), budget(run));
  if (file.dump() !== before)
    throw new Error("References differ after as many were dropped as were added");
  const hash = new WordHash();
  for (const range of ranges) hash.add(file.hasUniqueRef(range) ? 1 : 2);
  return {
    figures: {
      nsPerPair: avg / slots.length,
      objectsPerPair: countObjects(() => replay(OBJECT_OPS)) / OBJECT_OPS,
    },
    hash: hash.toString(),
    traceHash: trace.hash,
  };
}

if (import.meta.main) await main(bench);
