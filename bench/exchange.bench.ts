/**
 * Exchange with gVisor: a MemoryFile is exported to gVisor's format and imported again, here and,
 * if the peer is available, there.
 *
 * "dense" and "fragmented" are timed: both sides load the same file, which exportTo wrote, and
 * gVisor checks the stamp of every page. "mixed" is not timed: small and huge allocations of all
 * kinds, some in groups, some shared, some dropped in whole or in part. gVisor loads it, compares
 * everything with the expectation, and drops every reference.
 */
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { exportTo, importFrom } from "../src/gvisor/index.ts";
import { FileRange, HUGE_PAGE_SIZE, MemoryFile, MemoryKind, PAGE_SIZE } from "../src/index.ts";
import {
  type Bench,
  main,
  number,
  type Params,
  type Run,
  type Sample,
  text,
} from "./support/bench.ts";
import { fillImage, hashFile, hashImage } from "./support/image.ts";
import { prepareCache } from "./support/page-cache.ts";
import {
  checkStamp,
  filledBytes,
  type Pattern,
  Random,
  stampPages,
  WordHash,
} from "./support/trace.ts";

const GIB = 2 ** 30;

export const bench: Bench = {
  subject: "exchange",
  title: "exportTo gVisor's format, importFrom it",
  cases: ({ bytes, isSmoke }) => [
    { pattern: "dense", bytes: bytes / 4 },
    { pattern: "fragmented", bytes: bytes / 4 },
    { pattern: "mixed", allocations: isSmoke ? 200 : 2_000 },
  ],
  measure: (params, run) =>
    params["pattern"] === "mixed" ? mixedSample(params, run) : imageSample(params, run),
  scratch: (directory, params) => exportOf(directory, params),
  gvisor: {
    arguments: (params, run) => {
      const from = ["-dir", exportOf(run.directory, params)];
      if (params["pattern"] === "mixed") return ["check", ...from];
      return [
        "load",
        ...from,
        "-bytes",
        `${params["bytes"]}`,
        "-pattern",
        `${params["pattern"]}`,
        "-verify",
        "-rounds",
        "1",
      ];
    },
  },
};

function exportOf(directory: string, { pattern }: Params): string {
  return join(directory, `exchange-${pattern}`);
}

async function imageSample(params: Params, run: Run): Promise<Sample> {
  const bytes = number(params, "bytes");
  const pattern = text(params, "pattern") as Pattern;
  const directory = exportOf(run.directory, params);
  rmSync(directory, { recursive: true, force: true });
  const file = MemoryFile.create({ name: "bench" });
  fillImage(file, pattern, bytes);
  const { durationMs, metaBytes } = await exportTo(file, directory);
  file.destroy();

  const pages = join(directory, "pages.img");
  const written = await hashFile(pages);
  prepareCache(pages, "hot");
  const startedMs = performance.now();
  using back = await importFrom(directory, { background: true });
  const returnedMs = performance.now();
  await back.awaitLoad();
  const loadedSeconds = (performance.now() - startedMs) / 1000;
  const hash = hashImage(back, pattern, bytes);
  if (hash !== written) throw new Error(`Imported ${hash}, but pages.img holds ${written}`);
  return {
    figures: {
      exportSeconds: durationMs / 1000,
      metaBytes,
      loadFromReturnsSeconds: (returnedMs - startedMs) / 1000,
      gibPerSecond: filledBytes(pattern, bytes) / GIB / loadedSeconds,
    },
    hash,
  };
}

/** The expectation that the peer's `check` compares with: see bench/peers/gvisor/README.md. */
interface Expected {
  readonly live: {
    start: number;
    end: number;
    refs: number;
    kind: number;
    group: number;
    huge: boolean;
  }[];
  readonly filled: { offset: number; index: number }[];
  readonly totalSize: number;
}

async function mixedSample(params: Params, run: Run): Promise<Sample> {
  const directory = exportOf(run.directory, params);
  rmSync(directory, { recursive: true, force: true });
  const file = MemoryFile.create({ name: "bench", expectHugepages: true });
  const expected = fillMixed(file, number(params, "allocations"));
  await file.released();
  await exportTo(file, directory);
  file.destroy();
  writeFileSync(join(directory, "expected.json"), JSON.stringify(expected));

  using back = await importFrom(directory);
  const { live, filled, totalSize } = expected;
  const hash = new WordHash();
  for (const { start, end, refs } of live) {
    const range = new FileRange(start, end);
    if (back.hasUniqueRef(range) !== (refs === 1))
      throw new Error(`Range ${range} does not have its ${refs} references`);
    for (const word of [start / PAGE_SIZE, end / PAGE_SIZE, refs]) hash.add(word);
  }
  for (const { offset, index } of filled) {
    checkStamp(back.view({ start: offset, end: offset + PAGE_SIZE }), index);
    hash.add(index);
  }
  const liveBytes = live.reduce((sum, { start, end }) => sum + end - start, 0);
  if (back.allocatedBytes !== liveBytes)
    throw new Error(`${back.allocatedBytes} bytes are live, expected ${liveBytes}`);
  return {
    figures: {
      liveRanges: live.length,
      livePages: liveBytes / PAGE_SIZE,
      filledPages: filled.length,
      totalSizeBytes: totalSize,
    },
    hash: hash.toString(),
  };
}

const KINDS = Object.values(MemoryKind);

/**
 * A free huge page follows each used one. gVisor loses count of a release that spans several huge
 * pages and ends inside one, and the check's own releases would do that if ranges touched.
 */
const HUGE_ALLOCATION = 2 * HUGE_PAGE_SIZE;

function fillMixed(file: MemoryFile, allocations: number): Expected {
  const random = new Random(1);
  const live: Expected["live"] = [];
  for (let i = 0; i < allocations; i++) {
    const huge = random.below(16) === 0;
    const lengthBytes = huge ? HUGE_ALLOCATION : (1 + random.below(64)) * PAGE_SIZE;
    const kind = KINDS[random.below(KINDS.length)]!;
    const group = random.below(4);
    const direction = random.below(4) === 0 ? "topDown" : "bottomUp";
    const { start, end } = file.allocate(lengthBytes, { kind, group, huge, direction });
    const refs = 1 + random.below(3);
    for (let more = 1; more < refs; more++) file.incRef({ start, end });
    live.push({ start, end, refs, kind, group, huge });
  }
  const kept = live.flatMap((range) => dropSome(file, range, random));
  const filled: Expected["filled"] = [];
  for (const { start, end } of kept) {
    for (let offset = start; offset < end; offset += PAGE_SIZE) {
      if (random.below(16) !== 0) continue;
      // Index 0 would be a page that begins with zeros. Other indexes give each page its own stamp.
      const index = 1 + filled.length;
      stampPages(
        file.view({ start: offset, end: offset + PAGE_SIZE }, Uint32Array),
        index,
        "dense",
      );
      filled.push({ offset, index });
    }
  }
  return { live: kept, filled, totalSize: file.totalSizeBytes };
}

/**
 * Drops all references of a quarter of the ranges, and of the middle of another quarter. Returns
 * the rest.
 */
function dropSome(
  file: MemoryFile,
  whole: Expected["live"][number],
  random: Random,
): Expected["live"] {
  const range = whole.huge ? { ...whole, end: whole.start + HUGE_PAGE_SIZE } : whole;
  if (whole.huge) drop(file, range.end, whole.end, whole.refs);
  const fate = random.below(4);
  const pages = (range.end - range.start) / PAGE_SIZE;
  if (fate >= 2 || (fate === 1 && pages < 3)) return [range];
  const start = fate === 0 ? range.start : range.start + Math.floor(pages / 3) * PAGE_SIZE;
  const end = fate === 0 ? range.end : range.start + Math.floor((2 * pages) / 3) * PAGE_SIZE;
  drop(file, start, end, range.refs);
  return [
    { ...range, end: start },
    { ...range, start: end },
  ].filter((part) => part.start < part.end);
}

function drop(file: MemoryFile, start: number, end: number, refs: number): void {
  for (let left = refs; left > 0; left--) file.decRef({ start, end });
}

if (import.meta.main) await main(bench);
