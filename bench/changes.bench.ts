/**
 * Finding written pages: the cost of a take after no write and after one page in a hundred was
 * written, and the cost for the program of its first write to a page. The rival compares hashes, as
 * a save does if the kernel forbids userfaultfd.
 */
import { MADV_COLLAPSE, MADV_POPULATE_WRITE, tryAdvise } from "../ffi/index.ts";
import { PageHashes } from "../src/changes/page-hashes.ts";
import type { PageRuns, RunCollector } from "../src/changes/page-runs.ts";
import type { ChangeTracker } from "../src/changes/tracker.ts";
import type { FileCore } from "../src/core/core.ts";
import { coreOf } from "../src/file/memory-file.ts";
import { CHUNK_SIZE, HUGE_PAGE_SIZE, MemoryFile, PAGE_SIZE } from "../src/index.ts";
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
import { Random, WordHash } from "./support/trace.ts";

const WORDS_PER_PAGE = PAGE_SIZE / 4;
const SEED = 18;

export const bench: Bench = {
  subject: "changes",
  title: "finding written pages, one in a hundred",
  cases: ({ isSmoke, bytes }) =>
    ["small", "huge"].flatMap((pages) =>
      (isSmoke ? [2 ** 24] : [2 ** 28, bytes]).map((size) => ({ bytes: size, pages })),
    ),
  rivals: () => ["hashes"],
  measure: sample,
};

async function sample(params: Params, run: Run): Promise<Sample> {
  const bytes = number(params, "bytes");
  using file = MemoryFile.create();
  const core = coreOf(file);
  const range = file.allocate(bytes);
  if (text(params, "pages") === "huge") makeHuge(core.mapping.base, bytes);
  const chunks = file.views(range).map((view) => new Uint32Array(view.buffer, view.byteOffset));
  const pages = bytes / PAGE_SIZE;
  for (let page = 0; page < pages; page++) write(chunks, page, 1);
  const used = { start: Uint32Array.of(0), length: Uint32Array.of(pages) };
  const tracker = run.by === OURS ? trackWrites(core) : compareHashes(core, pages);
  const take = () => timed(() => tracker.take(used));
  const armSeconds = take();
  const written = drawPages(pages, SEED);
  const writeAll = (value: number) =>
    timed(() => {
      for (const page of written) write(chunks, page, value);
    });
  // By the third time, huge pages that were written before have been split. A save copies what is
  // reported, so that pages of a split unit are mapped again before they are written.
  for (const value of [2, 3]) {
    writeAll(value);
    readPages(chunks, tracker.take(used).runs);
  }
  const first = writeAll(4);
  const later = writeAll(5);
  let taken: RunCollector | undefined;
  const takeSeconds = timed(() => {
    taken = tracker.take(used);
  });
  const cleanTakeSeconds = take();
  const hash = hashReported(taken!.runs, written);
  const nsPer = 1e9 / written.length;
  return {
    figures: {
      armSeconds,
      cleanTakeSeconds,
      takeSeconds,
      firstWriteNs: first * nsPer,
      laterWriteNs: later * nsPer,
    },
    hash,
  };
}

/** Reads a word of each page. */
function readPages(chunks: readonly Uint32Array[], { start, length }: PageRuns): number {
  let sum = 0;
  for (let run = 0; run < start.length; run++) {
    const end = start[run]! + length[run]!;
    for (let page = start[run]!; page < end; page++) sum += read(chunks, page);
  }
  return sum;
}

function trackWrites({ allocator, changes }: FileCore): ChangeTracker {
  allocator.lock();
  changes.activate();
  allocator.unlock();
  changes.tryBegin();
  return changes;
}

/** Stores the hash of each reported page, as a save does when it stores the page. */
function compareHashes({ mapping: { fd, base } }: FileCore, pages: number): ChangeTracker {
  const hashes = new BigUint64Array(pages);
  return new PageHashes(
    { fd, base, sizePages: () => pages },
    {
      isZero: (page) => hashes[page] === 0n,
      isEqual: (page, contents) => {
        const hash = Bun.hash.xxHash3(contents);
        const isSame = hashes[page] === hash;
        hashes[page] = hash;
        return isSame;
      },
    },
  );
}

function makeHuge(base: number, bytes: number): void {
  for (let offset = 0; offset < bytes; offset += HUGE_PAGE_SIZE) {
    tryAdvise(base + offset, PAGE_SIZE, MADV_POPULATE_WRITE);
    tryAdvise(base + offset, HUGE_PAGE_SIZE, MADV_COLLAPSE);
  }
}

function write(chunks: readonly Uint32Array[], page: number, value: number): void {
  const pagesPerChunk = CHUNK_SIZE / PAGE_SIZE;
  const chunk = chunks[Math.floor(page / pagesPerChunk)]!;
  chunk[(page % pagesPerChunk) * WORDS_PER_PAGE] = value;
}

function read(chunks: readonly Uint32Array[], page: number): number {
  const pagesPerChunk = CHUNK_SIZE / PAGE_SIZE;
  return chunks[Math.floor(page / pagesPerChunk)]![(page % pagesPerChunk) * WORDS_PER_PAGE]!;
}

function drawPages(pages: number, seed: number): Uint32Array {
  const random = new Random(seed);
  const drawn = new Set<number>();
  while (drawn.size < Math.max(1, Math.floor(pages / 100))) drawn.add(random.below(pages));
  return Uint32Array.from(drawn).sort();
}

/** A hash of the written pages that were reported. A tracker may report others, too. */
function hashReported({ start, length }: PageRuns, written: Uint32Array): string {
  const hash = new WordHash();
  let run = 0;
  for (const page of written) {
    while (run < start.length && start[run]! + length[run]! <= page) run++;
    if (run < start.length && start[run]! <= page) hash.add(page);
  }
  return hash.toString();
}

function timed(work: () => unknown): number {
  const began = performance.now();
  work();
  return (performance.now() - began) / 1000;
}

if (import.meta.main) await main(bench);
