/**
 * Loads an image behind the running program, which awaits random pages meanwhile: await i begins i
 * × 2 ms after the first, whether or not earlier ones have ended, until all is loaded. `awaits: 0`
 * loads undisturbed; rivals that only read the bytes take part there.
 *
 * The page cache is prepared just before, in the same process, and checked with mincore. The hash
 * covers all loaded contents. pgalloc runs as it is deployed: an executable with bytecode
 * (docs/deploying.md). The `start` bench measures it from sources as well.
 */
import { closeSync, openSync, readdirSync, readSync, statSync } from "node:fs";
import { join } from "node:path";
import { uringUnavailableReason } from "../src/aio/index.ts";
import { type LoadQueue, MemoryFile, PAGE_SIZE } from "../src/index.ts";
import { CALLS_ALONE, loadBare } from "./support/bare-load.ts";
import {
  type Bench,
  main,
  number,
  OURS,
  type Params,
  type Run,
  type Sample,
  text,
} from "./support/bench.ts";
import { EventLoopMeter } from "./support/event-loop.ts";
import { filledPage, formatHash, hashImage, pageFileIn } from "./support/image.ts";
import { type CacheState, prepareCache } from "./support/page-cache.ts";
import { percentile } from "./support/statistics.ts";
import { checkStamp, filledBytes, type Pattern, Random } from "./support/trace.ts";
import { ourImage, peerImage } from "./save.bench.ts";

const INTERVAL_MS = 2;
const AWAITS = 200;
const GIB = 2 ** 30;

export const bench: Bench = {
  subject: "load",
  title: "loadFrom in the background",
  built: "ours",
  cases: ({ bytes }) =>
    ["dense", "fragmented"].flatMap((pattern) => [
      { pattern, bytes: bytes / 8, cache: "hot", queue: "auto", awaits: 0 },
      ...["hot", "cold"].flatMap((cache) => [
        { pattern, bytes, cache, queue: "auto", awaits: 0 },
        ...["auto", ...QUEUES].map((queue) => ({ pattern, bytes, cache, queue, awaits: AWAITS })),
      ]),
    ]),
  rivals: ({ awaits, pattern }) => (awaits === 0 && pattern === "dense" ? Object.keys(RIVALS) : []),
  measure: sample,
  gvisor: { arguments: gvisorArguments },
};

const QUEUES: LoadQueue[] =
  uringUnavailableReason() === null ? ["workers", "uring", "inline"] : ["workers", "inline"];

/** The peer has one queue. It is compared with "auto". */
export function gvisorArguments(params: Params, run: Run): string[] {
  const cold = params["cache"] === "cold" ? ["-cold"] : [];
  const from = [
    "load",
    "-dir",
    peerImage(run.directory, params),
    "-rounds",
    "1",
    "-seed",
    `${run.seed}`,
  ];
  // Checks the stamp of every awaited page, and in the first round of every page.
  const verify = run.seed === 1 ? ["-verify"] : [];
  return [...from, "-await", `${params["awaits"]}`, ...verify, ...cold];
}

async function sample(params: Params, run: Run): Promise<Sample> {
  const directory = ourImage(run.directory, params);
  let resident = 0;
  for (const name of readdirSync(directory)) {
    const fraction = prepareCache(join(directory, name), text(params, "cache") as CacheState);
    if (name.startsWith("pages")) resident = fraction;
  }
  Bun.gc(true);
  const work =
    run.by === OURS
      ? loadImage(directory, params, run)
      : loadByRival(pageFileIn(directory), run.by);
  const { figures, hash } = await work;
  return { figures: { residentFractionBefore: resident, ...figures }, hash };
}

/** Measures the process from its start until `stop`. */
class JobMeter {
  readonly startedMs = performance.now();
  private readonly cpu = process.cpuUsage();
  private readonly loop = new EventLoopMeter();

  secondsSoFar(): number {
    return (performance.now() - this.startedMs) / 1000;
  }

  /** At `loadedSeconds` after the start, `bytes` were loaded. */
  stop(loadedSeconds: number, bytes: number): Record<string, number> {
    const { user, system } = process.cpuUsage(this.cpu);
    return {
      allLoadedSeconds: loadedSeconds,
      gibPerSecond: bytes / GIB / loadedSeconds,
      cpuSeconds: (user + system) / 1e6,
      ...this.loop.stop(),
    };
  }
}

async function loadImage(directory: string, params: Params, run: Run): Promise<Sample> {
  const pattern = text(params, "pattern") as Pattern;
  const bytes = number(params, "bytes");
  const queue = text(params, "queue") as LoadQueue;
  const meter = new JobMeter();
  using file = await MemoryFile.loadFrom(directory, {
    background: true,
    queue,
    // Each round awaits other pages: a set of the round before would be read first for nothing.
    workingSet: false,
  });
  const loadFromReturnsSeconds = meter.secondsSoFar();
  const loaded = file.awaitLoad().then(() => meter.secondsSoFar());
  const awaits = await awaitPages(file, {
    pattern,
    pages: bytes / PAGE_SIZE,
    count: number(params, "awaits"),
    seed: run.seed,
  });
  const figures = meter.stop(await loaded, filledBytes(pattern, bytes));
  const { hugeBytes, loadedBytes, demandBytes, readCalls } = file.loadStats();
  return {
    figures: {
      loadFromReturnsSeconds,
      ...awaitFigures(awaits, meter.startedMs),
      ...figures,
      hugeBytes,
      smallBytes: loadedBytes - hugeBytes,
      demandBytes,
      readCalls,
    },
    hash: hashImage(file, pattern, bytes),
  };
}

interface Await {
  readonly beganMs: number;
  readonly ms: number;
  readonly whileLoading: boolean;
}

interface AwaitPlan {
  readonly pattern: Pattern;
  readonly pages: number;
  readonly count: number;
  readonly seed: number;
}

async function awaitPages(file: MemoryFile, plan: AwaitPlan): Promise<Await[]> {
  const random = new Random(plan.seed);
  const awaits: Promise<Await>[] = [];
  const firstMs = performance.now();
  for (let i = 0; i < plan.count; i++) {
    const page = filledPage(plan.pattern, random.below(plan.pages));
    const pauseMs = firstMs + i * INTERVAL_MS - performance.now();
    if (pauseMs > 0) await Bun.sleep(pauseMs);
    if (i > 0 && !file.isLoading) break;
    awaits.push(awaitPage(file, page));
  }
  return await Promise.all(awaits);
}

async function awaitPage(file: MemoryFile, page: number): Promise<Await> {
  const whileLoading = file.isLoading;
  const beganMs = performance.now();
  const range = { start: page * PAGE_SIZE, end: (page + 1) * PAGE_SIZE };
  await file.awaitLoad(range);
  checkStamp(file.view(range), page);
  return { beganMs, ms: performance.now() - beganMs, whileLoading };
}

function awaitFigures(awaits: readonly Await[], startedMs: number): Record<string, number> {
  const first = awaits[0];
  if (first === undefined) return {};
  // The first one counts also if a small image was loaded before it.
  const counted = awaits.filter(({ whileLoading }, i) => whileLoading || i === 0);
  const ns = counted.map(({ ms }) => ms * 1e6);
  return {
    firstPageSeconds: (first.beganMs + first.ms - startedMs) / 1000,
    awaitsWhileLoading: awaits.filter(({ whileLoading }) => whileLoading).length,
    awaitP50Ns: percentile(ns, 0.5),
    awaitP99Ns: percentile(ns, 0.99),
    awaitMaxNs: percentile(ns, 1),
  };
}

/** Each reads a file into memory. Those that map it touch every page. */
const RIVALS: Record<string, (path: string) => Uint8Array | Promise<Uint8Array>> = {
  [CALLS_ALONE]: async (path) => await loadBare(path, statSync(path).size),
  "Bun.file().arrayBuffer()": async (path) => new Uint8Array(await Bun.file(path).arrayBuffer()),
  "Bun.mmap, touched": (path) => {
    const bytes = Bun.mmap(path);
    let sum = 0;
    for (let at = 0; at < bytes.length; at += PAGE_SIZE) sum += bytes[at]!;
    if (sum === 0) throw new Error("A stamped file reads as zeros");
    return bytes;
  },
  "fs.readSync": (path) => {
    const bytes = new Uint8Array(statSync(path).size);
    const fd = openSync(path, "r");
    // One call reads at most 2 GiB less a page.
    for (let done = 0; done < bytes.length; )
      done += readSync(fd, bytes, done, Math.min(GIB, bytes.length - done), done);
    closeSync(fd);
    return bytes;
  },
};

async function loadByRival(path: string, by: string): Promise<Sample> {
  const load = RIVALS[by];
  if (load === undefined) throw new Error(`Unknown rival ${by}`);
  const meter = new JobMeter();
  const file = await load(path);
  const seconds = meter.secondsSoFar();
  const bytes = file.subarray(0, file.length - PAGE_SIZE); // Without the trailer.
  const figures = meter.stop(seconds, bytes.length);
  return { figures, hash: formatHash(Bun.hash.crc32(bytes), bytes.length) };
}

if (import.meta.main) await main(bench);
