/**
 * Runs every bench at its smallest size, so that none stops working: all figures are present, all
 * results are right. No test asserts a time, only counts.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readdirSync, rmSync, statfsSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseOptions } from "../../bench/options.ts";
import { drawChart } from "../../bench/report/chart.ts";
import { type CaseResult, findCase, type Results } from "../../bench/report/results.ts";
import { formatResults } from "../../bench/report/table.ts";
import { measureAll, SUBJECTS } from "../../bench/run.ts";
import { CALLS_ALONE } from "../../bench/support/bare-load.ts";
import { OURS, type Params } from "../../bench/support/bench.ts";
import { filledBytes, type Pattern } from "../../bench/support/trace.ts";
import { HUGE_PAGE_SIZE, PAGE_SIZE } from "../../src/index.ts";

/** Figures that the library has in every case of a subject. */
const FIGURES: Record<string, string[]> = {
  allocate: [
    "nsPerPair",
    "nsPerPairSettled",
    "cpuNsPerPair",
    "firstNsPerPair",
    "objectsPerPair",
    "syscallsPerPair",
  ],
  references: ["nsPerPair", "objectsPerPair"],
  view: ["nsPerView", "nsPerViewAfterDiscard", "objectsPerView"],
  big: ["nsPerPair", "nsPerPairSettled", "firstNsPerPair"],
  segment: ["nsPerOperation"],
  "zero-scan": ["nsPerPage", "gibPerSecond"],
  coalesce: ["nsPerPiece"],
  instant: ["fullSaveSeconds", "saveSeconds", "pauseSeconds", "writtenBytes", "busyPauseSeconds"],
  changes: ["armSeconds", "cleanTakeSeconds", "takeSeconds", "firstWriteNs", "laterWriteNs"],
  documents: ["usPerNew", "usPerGet", "scanMs", "checkpointMs", "coldStartMs", "residentMib"],
  "data-threads": ["nsPerGet"],
  data: ["nsPerSet", "nsPerGet", "nsPerGetView", "nsPerReplace", "gcMs", "heapMib", "firstGetMs"],
  aio: ["nsPerRead", "nsPerReadAsync"],
  exchange: [],
  frames: [],
  mapped: ["loadFromReturnsSeconds", "allLoadedSeconds", "gibPerSecond", "scanSeconds"],
  remote: [],
  restart: ["startToAnswerSeconds", "loadToAnswerSeconds", "workingSetBytes", "wastedFraction"],
  save: [
    "saveSeconds",
    "saveAndSyncSeconds",
    "saveCPUSeconds",
    "loopGapP99Ms",
    "loopGapMaxMs",
    "metaBytes",
    "pagesBytes",
  ],
  load: [
    ...[
      "loadFromReturnsSeconds",
      "allLoadedSeconds",
      "gibPerSecond",
      "cpuSeconds",
      "residentFractionBefore",
    ],
    ...[
      "loopGapP50Ms",
      "loopGapP99Ms",
      "loopGapMaxMs",
      "hugeBytes",
      "smallBytes",
      "demandBytes",
      "readCalls",
    ],
  ],
  start: ["startToFirstPageSeconds", "loadFromReturnsSeconds", "firstPageSeconds"],
};
const TMPFS = 0x01021994;
const AWAIT_FIGURES = [
  "firstPageSeconds",
  "awaitsWhileLoading",
  "awaitP50Ns",
  "awaitP99Ns",
  "awaitMaxNs",
];

let directory: string;
let results: Results;

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), "pgalloc-bench-test-"));
  results = await measureAll(parseOptions(["--smoke", "--dir", directory]), () => undefined);
}, 60_000);

afterAll(() => rmSync(directory, { recursive: true, force: true }));

/** The library's figures in the case of a subject with these parameters. */
function ours(subject: string, params: Params): Record<string, number> {
  const found = findCase(results, subject, params);
  if (found === undefined) throw new Error(`No case of ${subject} with ${JSON.stringify(params)}`);
  return Object.fromEntries(
    Object.entries(found.contenders[OURS]!.figures).map(([name, { median }]) => [name, median]),
  );
}

const casesOf = (subject: string): CaseResult[] =>
  results.cases.filter((one) => one.subject === subject);

test("SUBJECTS lists every bench", () => {
  expect(Object.keys(FIGURES).sort()).toEqual([...SUBJECTS].sort());
});

test.each(SUBJECTS)(
  "%s has every figure of every contender and a hash, in every case",
  (subject) => {
    const cases = casesOf(subject);
    expect(cases.length).toBeGreaterThan(0);
    for (const { params, contenders } of cases) {
      const wanted = [
        ...FIGURES[subject]!,
        ...(Number(params["awaits"] ?? 0) > 0 ? AWAIT_FIGURES : []),
      ];
      expect(Object.keys(contenders[OURS]!.figures)).toEqual(expect.arrayContaining(wanted));
      for (const [name, { figures, hash }] of Object.entries(contenders)) {
        expect({ name, hash }).toEqual({ name, hash: expect.stringMatching(/^[0-9a-f-]+$/) });
        for (const [figure, { median, min, max, rounds }] of Object.entries(figures)) {
          expect({ figure, finite: [median, min, max].every(Number.isFinite) }).toEqual({
            figure,
            finite: true,
          });
          expect(rounds.length).toBe(results.rounds);
        }
      }
    }
  },
);

test("allocate places ranges where gVisor's own program does", () => {
  expect(findCase(results, "allocate", { live: 100 })!.contenders[OURS]!.hash).toBe("ee3dba85");
});

test("allocate + decRef makes at most one system call", () => {
  for (const { params } of casesOf("allocate"))
    expect(ours("allocate", params)["syscallsPerPair"]).toBeLessThanOrEqual(1);
});

test("incRef + decRef makes no object, allocate + decRef one", () => {
  for (const { params } of casesOf("references"))
    expect(ours("references", params)["objectsPerPair"]).toBeLessThan(0.1);
  for (const { params } of casesOf("allocate"))
    expect(ours("allocate", params)["objectsPerPair"]).toBeLessThan(1.5);
});

test("exchange loads its own checkpoint, with references, kinds and groups", () => {
  for (const pattern of ["dense", "fragmented"]) {
    const exchange = ours("exchange", { pattern });
    for (const figure of ["exportSeconds", "loadFromReturnsSeconds", "gibPerSecond"])
      expect(exchange[figure]).toBeGreaterThan(0);
  }
  const { liveRanges, livePages, filledPages } = ours("exchange", { pattern: "mixed" });
  expect(liveRanges).toBeGreaterThan(100);
  expect(livePages).toBeGreaterThan(liveRanges!);
  expect(filledPages).toBeGreaterThan(100);
});

test("JavaScript's own ways of saving have the same result", () => {
  expect(Object.keys(casesOf("segment")[0]!.contenders)).toEqual([OURS, "sorted array"]);
  const dense = findCase(results, "load", {
    pattern: "dense",
    bytes: results.bytes,
    cache: "hot",
    awaits: 0,
  })!;
  expect(Object.keys(dense.contenders)).toEqual([
    OURS,
    CALLS_ALONE,
    "Bun.file().arrayBuffer()",
    "Bun.mmap, touched",
    "fs.readSync",
  ]);
});

describe.each(["dense", "fragmented"] as Pattern[])("%s image", (pattern) => {
  test("loads the saved contents through every queue, hot and cold", () => {
    const saved = findCase(results, "save", { pattern, bytes: results.bytes })!.contenders[OURS]!
      .hash;
    const loads = casesOf("load").filter(
      ({ params }) => params["pattern"] === pattern && params["bytes"] === results.bytes,
    );
    expect(loads.length).toBeGreaterThanOrEqual(8);
    for (const { contenders } of loads) expect(contenders[OURS]!.hash).toBe(saved);
  });

  test("stores and loads only pages with contents, one extent for each run", () => {
    const filled = filledBytes(pattern, results.bytes);
    const save = ours("save", { pattern, bytes: results.bytes });
    expect(save["pagesBytes"]).toBe(filled);
    expect(save["extents"]).toBe(
      pattern === "dense" ? results.bytes / HUGE_PAGE_SIZE : results.bytes / PAGE_SIZE / 4,
    );
    for (const { params } of casesOf("load").filter(
      ({ params }) => params["pattern"] === pattern,
    )) {
      const load = ours("load", params);
      expect(load["hugeBytes"]! + load["smallBytes"]!).toBe(
        filledBytes(pattern, Number(params["bytes"])),
      );
    }
  });

  test("puts the page cache into the state that the case names", () => {
    if (statfsSync(directory).type === TMPFS) return; // Its files exist only in the page cache.
    for (const { params } of casesOf("load").filter(
      ({ params }) => params["pattern"] === pattern,
    )) {
      expect(ours("load", params)["residentFractionBefore"]).toBe(
        params["cache"] === "hot" ? 1 : 0,
      );
    }
  });
});

test("reads in large pieces in the background pass, if it is dense", () => {
  const load = ours("load", {
    pattern: "dense",
    bytes: results.bytes,
    cache: "hot",
    queue: "auto",
    awaits: 0,
  });
  expect(results.bytes / load["readCalls"]!).toBeGreaterThanOrEqual(64 * 1024);
});

test("report lists every case, and the chart is a complete document", () => {
  const report = formatResults(results);
  for (const { subject } of results.cases) expect(report).toContain(`| ${subject}, `);
  expect(report).toContain("Absent – ");
  expect(drawChart(results)).toMatch(/^<svg [\s\S]*<\/svg>\n$/);
});

test("run removes its images", () => {
  expect(readdirSync(directory)).toEqual([]);
});

test.each(["SIGINT", "SIGTERM"] as const)(
  "run removes its images and ends its processes after %s",
  async (signal) => {
    const run = join(import.meta.dir, "../../bench/run.ts");
    const child = Bun.spawn(
      [process.execPath, run, "--smoke", "--only", "load", "--dir", directory],
      {
        stdio: ["ignore", "ignore", "pipe"],
      },
    );
    // The first line comes after the first case: images exist, and others are being made.
    for await (const _ of child.stderr) break;
    expect(readdirSync(directory).length).toBe(1);
    const workspace = join(directory, readdirSync(directory)[0]!);
    child.kill(signal);
    expect(await child.exited).toBe(signal === "SIGINT" ? 130 : 143);
    expect(existsSync(workspace)).toBe(false);
  },
);
