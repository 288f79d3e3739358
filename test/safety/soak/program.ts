/**
 * One life of a program that is killed repeatedly: DIRECTORY SEED. It restores its memory in the
 * background and checks every page's stamp, then allocates, fills, rewrites, drops and checkpoints
 * until it is killed. Faults come from outside (fault-hook.ts). An unknown error, or a page that
 * differs from the index, ends it with code 1. It reports in lines of JSON.
 */
import { type FileRange, MemoryFile, PAGE_SIZE } from "../../../src/index.ts";
import { stampOf, stampPage } from "../support/stamped.ts";

/** The program's knowledge of its memory: its userData. */
interface Index {
  /** Checkpoints so far. */
  round: number;
  nextVersion: number;
  /** Byte offsets. Each page's stamp has its page number and the version. */
  ranges: { start: number; end: number; version: number }[];
}

const MAX_PAGES = 4096;
const MAX_RANGE_PAGES = 700;
const EXPECTED_CODES = new Set(["EIO", "ENOSPC", "ERR_THREAD_DIED", "ERR_CORRUPT_CHECKPOINT"]);

const [directory, seed] = process.argv.slice(2) as [string, string];
let state = Number(seed) >>> 0;

/** xorshift: an integer in [0, end). */
function random(end: number): number {
  state ^= state << 13;
  state ^= state >>> 17;
  state ^= state << 5;
  return (state >>> 0) % end;
}

function say(event: Record<string, unknown>): void {
  console.log(JSON.stringify(event));
}

/**
 * Runs `work` until it succeeds. Errors of injected faults are reported and the work is repeated;
 * all others are thrown.
 */
async function insist<T>(what: string, work: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await work();
    } catch (error) {
      const { code } = error as { code?: string };
      if (code === undefined || !EXPECTED_CODES.has(code)) throw error;
      say({ event: "error", what, code });
      await Bun.sleep(2);
    }
  }
}

function wordsOf(file: MemoryFile, page: number): Uint32Array {
  return file.view({ start: page * PAGE_SIZE, end: (page + 1) * PAGE_SIZE }, Uint32Array);
}

function stampRange(
  file: MemoryFile,
  { start, end }: { start: number; end: number },
  version: number,
): void {
  for (let page = start / PAGE_SIZE; page < end / PAGE_SIZE; page++)
    stampPage(wordsOf(file, page), page, version);
}

async function restore(): Promise<{ file: MemoryFile; index: Index }> {
  const file = await insist("load", () =>
    MemoryFile.loadFrom(directory, {
      background: true,
      queue: random(4) === 0 ? "inline" : "auto",
    }),
  );
  const index = JSON.parse(new TextDecoder().decode(file.userData ?? new Uint8Array())) as Index;
  // In any order. Each range comes before the background pass.
  const order = index.ranges.toSorted(() => random(3) - 1);
  let pages = 0;
  for (const range of order) {
    await insist("await", () => file.retryLoad(range));
    for (let page = range.start / PAGE_SIZE; page < range.end / PAGE_SIZE; page++, pages++) {
      const found = stampOf(wordsOf(file, page), page);
      if (found !== range.version)
        throw new Error(`Page ${page} has version ${found}, the index says ${range.version}`);
    }
  }
  if (file.allocatedBytes !== pages * PAGE_SIZE)
    throw new Error(`${file.allocatedBytes} bytes are in use, the index has ${pages} pages`);
  say({ event: "restored", round: index.round, pages });
  return { file, index };
}

function change(file: MemoryFile, index: Index): void {
  for (let i = 0; i < 4; i++) {
    const what = random(3);
    const victim = index.ranges[random(Math.max(1, index.ranges.length))];
    if (what === 0 && victim !== undefined) {
      file.decRef(victim);
      index.ranges.splice(index.ranges.indexOf(victim), 1);
    } else if (what === 1 && victim !== undefined) {
      victim.version = index.nextVersion++;
      stampRange(file, victim, victim.version);
    } else if (file.allocatedBytes < MAX_PAGES * PAGE_SIZE) {
      const range: FileRange = file.allocate((1 + random(MAX_RANGE_PAGES)) * PAGE_SIZE, {
        direction: random(2) === 0 ? "topDown" : "bottomUp",
        kind: random(5),
      });
      const version = index.nextVersion++;
      stampRange(file, range, version);
      index.ranges.push({ start: range.start, end: range.end, version });
    }
  }
}

async function start(): Promise<{ file: MemoryFile; index: Index }> {
  if (await Bun.file(`${directory}/meta`).exists()) return await restore();
  return { file: MemoryFile.create(), index: { round: 0, nextVersion: 1, ranges: [] } };
}

const { file, index } = await start();
for (;;) {
  change(file, index);
  index.round++;
  const userData = new TextEncoder().encode(JSON.stringify(index));
  const report = await insist("save", () => file.saveTo(directory, { userData }));
  say({ event: "saved", round: index.round, bytes: report.pagesBytes });
}
