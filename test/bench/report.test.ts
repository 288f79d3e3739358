/** The report of made-up samples with known verdicts: ratios, goals, growth, the chart. */
import { expect, test } from "bun:test";
import { drawChart } from "../../bench/report/chart.ts";
import { makeCase, type Results, timesBetter } from "../../bench/report/results.ts";
import { formatResults } from "../../bench/report/table.ts";
import { targetLines } from "../../bench/report/targets.ts";
import type { Sample } from "../../bench/support/bench.ts";

const sample = (figures: Record<string, number>, hash: string | null = "1"): Sample => ({
  figures,
  hash,
});

function allocations(live: number, ours: number[], theirs: number[]) {
  return makeCase(
    { subject: "allocate", title: "pairs", params: { live, ops: 1 } },
    {
      pgalloc: ours.map((ns) => sample({ nsPerPair: ns })),
      gvisor: theirs.map((ns) => sample({ nsPerPair: ns })),
    },
  );
}

function resultsOf(cases: Results["cases"]): Results {
  return {
    format: 1,
    startedAt: "2026-01-01T00:00:00.000Z",
    durationSeconds: 1,
    machine: {
      cpu: "A <CPU> & more",
      cores: 2,
      memoryBytes: 2 ** 30,
      kernel: "6",
      arch: "x64",
      bun: "1",
      pageBytes: 4096,
      shmemEnabled: "never",
      transparentHugepages: "madvise",
      peers: ["gVisor"],
    },
    noise: {
      probes: 1,
      computeSpread: 1,
      copySpread: 1,
      sharedCoreShare: 0,
      loadAverageBefore: 0,
      stolenSeconds: 0,
    },
    rounds: 3,
    bytes: 2 ** 31,
    absent: [],
    cases,
  };
}

test("timesBetter prefers higher rates and lower times, and ignores counts", () => {
  expect(timesBetter("gibPerSecond", 4, 2)).toBe(2);
  expect(timesBetter("nsPerPair", 100, 400)).toBe(4);
  expect(timesBetter("awaitP99Ns", 100, 50)).toBe(0.5);
  expect(timesBetter("saveSeconds", 1, 3)).toBe(3);
  expect(timesBetter("totalSizeBytes", 1, 2)).toBeUndefined();
  expect(timesBetter("residentFractionBefore", 1, 1)).toBeUndefined();
});

test("a ratio is the median of the rounds' pairs, not the ratio of the medians", () => {
  const { ahead } = allocations(100, [1, 2, 10], [4, 2, 100]);
  expect(ahead["gvisor"]!["nsPerPair"]).toEqual({ median: 4, min: 1, max: 10, rounds: [4, 1, 10] });
});

test("makeCase refuses different results and different work", () => {
  const description = { subject: "allocate", title: "pairs", params: { live: 1 } };
  const make = (...hashes: (string | null)[]) =>
    makeCase(description, {
      pgalloc: hashes.map((hash) => sample({}, hash)),
      gvisor: hashes.map(() => sample({}, null)),
    });
  expect(() => make("a", "a")).not.toThrow();
  expect(() => make("a", "b")).toThrow(/Different result in allocate/);
  const traced = (traceHash: string) => [{ ...sample({}), traceHash }];
  expect(() => makeCase(description, { pgalloc: traced("a"), gvisor: traced("b") })).toThrow(
    /Different trace/,
  );
});

test("the report shows goals met, goals missed, lines without a goal, and growth", () => {
  const results = resultsOf([
    allocations(100, [1, 1, 1], [9, 9, 9]),
    allocations(10_000, [2, 2, 2], [7, 8, 9]),
    allocations(100_000, [3, 3, 3], [9, 9, 9]),
  ]);
  const verdicts = (from: Results) => targetLines(from).map(({ work, isMet }) => [work, isMet]);
  expect(verdicts(results)).toEqual([
    ["free + allocate pair, 100 live", null],
    ["free + allocate pair, 10,000 live", true],
    ["free + allocate pair, 100,000 live", null],
    ["free + allocate pair, cost at 100,000 live over 100", false],
  ]);
  const missed = resultsOf([allocations(10_000, [2, 2, 2], [7, 7, 9])]);
  expect(verdicts(missed)).toEqual([["free + allocate pair, 10,000 live", false]]);
});

test("the report has verdicts only for our own goals if the peer is absent", () => {
  const view = makeCase(
    { subject: "view", title: "", params: { live: 100 } },
    { pgalloc: [sample({ nsPerView: 101 })] },
  );
  const pair = makeCase(
    { subject: "allocate", title: "", params: { live: 10_000 } },
    { pgalloc: [sample({ nsPerPair: 1 })] },
  );
  expect(targetLines(resultsOf([pair, view])).map(({ isMet }) => isMet)).toEqual([null, false]);
});

test("the report lists what we lose", () => {
  const report = formatResults(resultsOf([allocations(10_000, [400, 400, 400], [100, 100, 100])]));
  expect(report).toContain("nsPerPair 400 ns against 100 ns, 0.25× (0.25× .. 0.25×)");
  expect(report).toContain("**no**");
});

test("the chart has a bar for each line, a mark for each goal, and escaped text", () => {
  const big = makeCase(
    { subject: "big", title: "", params: { bytes: 2 ** 36 } },
    { pgalloc: [sample({ nsPerPair: 2 })], gvisor: [sample({ nsPerPair: 1 })] },
  );
  const withoutGoal = allocations(100, [1, 1, 1], [2, 2, 2]);
  const chart = drawChart(resultsOf([allocations(10_000, [1, 1, 1], [8, 8, 8]), withoutGoal, big]));
  expect(chart.match(/<rect class="met"/g)).toHaveLength(1);
  expect(chart.match(/<rect class="missed"/g)).toHaveLength(1);
  expect(chart.match(/<line class="goal"/g)).toHaveLength(3); // one of them explains the others
  expect(chart).not.toContain("<CPU>");
  expect(chart).not.toContain("NaN");
});
