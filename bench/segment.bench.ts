/**
 * The interval set: gives a random range of 1 to 64 keys one of three values, and finds the first
 * run of class 1 that is large enough. The rival keeps its runs in sorted arrays, with binary
 * search and a shift at every change.
 */
import { do_not_optimize, measure } from "mitata";
import { SegmentSet } from "../src/segment/index.ts";
import {
  type Bench,
  budget,
  main,
  number,
  OURS,
  type Params,
  type Run,
  type Sample,
} from "./support/bench.ts";
import { Random, WordHash } from "./support/trace.ts";

const KEYS_PER_RUN = 32;
const CLASSES = 3;

interface IntervalSet {
  assign(start: number, end: number, tag: number): void;
  /** First run of class 1 with at least `count` keys, or -1. */
  firstFit(count: number): number;
  forEachRun(visit: (start: number, length: number, tag: number) => void): void;
}

export const bench: Bench = {
  subject: "segment",
  title: "interval set: assign a range, then first fit",
  cases: ({ isSmoke }) =>
    (isSmoke ? [100, 1_000] : [100, 10_000, 100_000]).map((runs) => ({
      runs,
      ops: isSmoke ? 500 : 5_000,
    })),
  rivals: () => ["sorted array"],
  measure: sample,
};

async function sample(params: Params, run: Run): Promise<Sample> {
  const keys = number(params, "runs") * KEYS_PER_RUN;
  const ops = number(params, "ops");
  const set = run.by === OURS ? segmentSet(keys) : new SortedArray(keys);
  // Runs of about KEYS_PER_RUN keys at first; the same draws for both contenders.
  const setup = new Random(1);
  for (let key = 0; key < keys; key += KEYS_PER_RUN) {
    set.assign(key, key + 1 + setup.below(KEYS_PER_RUN - 1), 1 + setup.below(CLASSES - 1));
  }
  const start = Uint32Array.from({ length: ops }, () => setup.below(keys - 64));
  const length = Uint32Array.from({ length: ops }, () => 1 + setup.below(64));
  const tag = Uint32Array.from({ length: ops }, () => setup.below(CLASSES));
  const replay = () => {
    for (let i = 0; i < ops; i++) {
      set.assign(start[i]!, start[i]! + length[i]!, tag[i]!);
      do_not_optimize(set.firstFit(length[i]!));
    }
  };
  replay(); // from here on a replay ends where it began
  const hash = new WordHash();
  const found = new Uint32Array(65).map((_, count) => set.firstFit(count + 1) + 1);
  for (const at of found) hash.add(at);
  set.forEachRun((at, count, value) => {
    hash.add(at);
    hash.add(count);
    hash.add(value);
  });
  const { avg } = await measure(replay, budget(run));
  return { figures: { nsPerOperation: avg / ops }, hash: hash.toString() };
}

function segmentSet(keys: number): IntervalSet {
  const set = SegmentSet.create(keys, CLASSES);
  set.extend(keys, 0);
  return {
    assign: (start, end, tag) => set.assign(start, end, tag),
    firstFit: (count) => set.firstFit(1, count),
    forEachRun: (visit) => set.visit(0, keys, (start, end, tag) => visit(start, end - start, tag)),
  };
}

class SortedArray implements IntervalSet {
  private readonly starts = [0];
  private readonly tags = [0];

  constructor(private readonly keys: number) {}

  assign(start: number, end: number, tag: number): void {
    const { starts, tags } = this;
    let from = this.indexOf(start);
    const to = this.indexOf(end - 1);
    const last = tags[to]!;
    const lastEnd = starts[to + 1] ?? this.keys;
    const newStarts: number[] = [];
    const newTags: number[] = [];
    const add = (at: number, value: number) => {
      if (newTags.at(-1) === value) return;
      newStarts.push(at);
      newTags.push(value);
    };
    if (starts[from]! < start) add(starts[from]!, tags[from]!);
    else if (from > 0) add(starts[--from]!, tags[from]!);
    add(start, tag);
    if (lastEnd > end) add(end, last);
    else if (to + 1 < starts.length) add(lastEnd, tags[to + 1]!);
    const removed = to - from + (lastEnd > end || to + 1 === starts.length ? 1 : 2);
    starts.splice(from, removed, ...newStarts);
    tags.splice(from, removed, ...newTags);
  }

  firstFit(count: number): number {
    const { starts, tags } = this;
    for (let i = 0; i < starts.length; i++) {
      if (tags[i] === 1 && (starts[i + 1] ?? this.keys) - starts[i]! >= count) return starts[i]!;
    }
    return -1;
  }

  forEachRun(visit: (start: number, length: number, tag: number) => void): void {
    this.starts.forEach((start, i) => {
      visit(start, (this.starts[i + 1] ?? this.keys) - start, this.tags[i]!);
    });
  }

  private indexOf(key: number): number {
    let low = 0;
    for (let high = this.starts.length; high - low > 1; ) {
      const middle = (low + high) >>> 1;
      if (this.starts[middle]! <= key) low = middle;
      else high = middle;
    }
    return low;
  }
}

if (import.meta.main) await main(bench);
