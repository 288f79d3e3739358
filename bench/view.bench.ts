/**
 * A view of a random live range. Each range is viewed repeatedly while no page is discarded, so
 * pgalloc finds a kept view. "nsPerViewAfterDiscard" is for a program that has just freed a page,
 * so the range's pages are checked too. The peer's view is a walk over its mappings, without an
 * object, and does not check whether the pages are in use.
 */
import { do_not_optimize, measure } from "mitata";
import { MemoryFile, PAGE_SIZE } from "../src/index.ts";
import { coreOf } from "../src/file/memory-file.ts";
import { Word } from "../src/control/control.ts";
import {
  type Bench,
  budget,
  main,
  number,
  type Params,
  type Run,
  type Sample,
} from "./support/bench.ts";
import { countObjects } from "./support/objects.ts";
import { makeTrace } from "./support/trace.ts";

const OBJECT_OPS = 1_000;

export const bench: Bench = {
  subject: "view",
  title: "view of a live range",
  cases: ({ isSmoke }) =>
    (isSmoke ? [100] : [100, 10_000, 100_000]).map((live) => ({
      live,
      ops: isSmoke ? 2_000 : 200_000,
    })),
  measure: sample,
  gvisor: {
    arguments: ({ live, ops }) => ["view", "-live", `${live}`, "-ops", `${ops}`, "-rounds", "1"],
  },
};

async function sample(params: Params, run: Run): Promise<Sample> {
  const trace = makeTrace(number(params, "live"), number(params, "ops"), 1, false);
  using file = MemoryFile.create({ name: "bench" });
  const ranges = Array.from(trace.fill, (pages) => file.allocate(pages * PAGE_SIZE));
  const wanted = trace.slots.reduce((sum, slot) => sum + trace.fill[slot]! * PAGE_SIZE, 0);
  const { slots } = trace;
  let bytes = 0;
  const { words } = coreOf(file);
  const replay = (ops: number, discards = 0) => {
    bytes = 0;
    for (let i = 0; i < ops; i++) {
      if (discards !== 0) words[Word.Discards]! += discards;
      const view = file.view(ranges[slots[i]!]!);
      do_not_optimize(view);
      bytes += view.byteLength;
    }
  };
  const { avg } = await measure(() => replay(slots.length), budget(run));
  const spanned = bytes;
  if (spanned !== wanted) throw new Error(`Views span ${spanned} bytes, expected ${wanted}`);
  const after = await measure(() => replay(slots.length, 1), budget(run));
  const objectsPerView = countObjects(() => replay(OBJECT_OPS)) / OBJECT_OPS;
  const figures = {
    nsPerView: avg / slots.length,
    nsPerViewAfterDiscard: after.avg / slots.length,
    objectsPerView,
  };
  return { figures, hash: `${spanned}`, traceHash: trace.hash };
}

if (import.meta.main) await main(bench);
