/**
 * Random traces in the form of gVisor's optrace.json, on MemoryFile's public methods and on the
 * naive model at once. Every placement, boolean and shared range is the same, and a forbidden call
 * changes nothing. The test counts the operations that the traces reached, so a generator that
 * misses some fails. (with-gvisor.ts has gVisor's own answers to such traces.)
 */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { CHUNK_SIZE, FileRange, HUGE_PAGE_SIZE, MemoryFile, PAGE_SIZE } from "../../src/index.ts";
import { comparableText } from "../support/expected.ts";
import { NaiveFile } from "../support/naive-file.ts";

const CHUNK_PAGES = CHUNK_SIZE / PAGE_SIZE;
const HUGE_PAGES = HUGE_PAGE_SIZE / PAGE_SIZE;
const WASTE_PAGES_MAX = 4096;

const step = fc.record({
  op: fc.constantFrom(
    "alloc",
    "alloc",
    "alloc",
    "incRef",
    "decRef",
    "decRef",
    "dropRest",
    "unique",
    "shared",
    "settle",
  ),
  pick: fc.nat({ max: 2 ** 20 }),
  from: fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true }),
  count: fc.double({ min: 0, max: 1, noNaN: true }),
  down: fc.boolean(),
  huge: fc.boolean(),
  commits: fc.integer({ min: 0, max: 9 }).map((n) => n === 0),
  pages: fc.oneof(
    { weight: 8, arbitrary: fc.integer({ min: 1, max: 64 }) },
    { weight: 3, arbitrary: fc.integer({ min: 65, max: 3000 }) },
    { weight: 1, arbitrary: fc.integer({ min: CHUNK_PAGES / 2, max: CHUNK_PAGES + 999 }) },
  ),
});
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

const reached = {
  up: 0,
  down: 0,
  hugeUp: 0,
  hugeDown: 0,
  grown: 0,
  acrossChunks: 0,
  recycled: 0,
  partialDrop: 0,
  partialHugeDrop: 0,
  shared: 0,
  subReleased: 0,
  hugeFreedAfterSubRelease: 0,
  refused: 0,
};

class Replay {
  readonly file = MemoryFile.create({ expectHugepages: true });
  private readonly naive = new NaiveFile();
  private readonly allocations: {
    readonly start: number;
    readonly end: number;
    readonly huge: boolean;
  }[] = [];
  private subReleasedPages = 0;

  async run(next: Step): Promise<void> {
    if (next.op === "settle") return await this.settle();
    if (next.op === "alloc" || this.allocations.length === 0) return await this.allocate(next);
    const { start, end, huge } = this.allocations.at(
      -1 - (next.pick % Math.min(12, this.allocations.length)),
    )!;
    // One in three is the whole allocation.
    const whole = next.pick % 3 === 0;
    const first = whole ? start : start + Math.floor(next.from * (end - start));
    const last = whole ? end : Math.max(first + 1, Math.floor(first + next.count * (end - first)));
    const range = new FileRange(first * PAGE_SIZE, last * PAGE_SIZE);
    if (next.op === "dropRest") return this.dropRest(start, end);
    if (!this.naive.isReferenced(first, last)) return this.refuse(next.op, range);
    const partial = first > start || last < end;
    if (next.op === "incRef") {
      this.file.incRef(range);
      this.naive.incRef(first, last);
    } else if (next.op === "decRef") {
      this.file.decRef(range);
      this.naive.decRef(first, last);
      if (partial) reached[huge ? "partialHugeDrop" : "partialDrop"]++;
    } else {
      const shared = this.naive.firstShared(first, last);
      const want =
        shared === null ? null : new FileRange(shared.start * PAGE_SIZE, shared.end * PAGE_SIZE);
      expect(this.file.hasUniqueRef(range)).toBe(want === null);
      expect(`${this.file.firstSharedRange(range)}`).toBe(`${want}`);
      if (want !== null) reached.shared++;
    }
  }

  /** Drops a reference of every page that has one, run by run, which empties huge pages. */
  private dropRest(start: number, end: number): void {
    for (let first = start; first < end; ) {
      let last = first;
      while (last < end && this.naive.isReferenced(last, last + 1)) last++;
      if (last > first) {
        this.file.decRef(new FileRange(first * PAGE_SIZE, last * PAGE_SIZE));
        this.naive.decRef(first, last);
      }
      first = last + 1;
    }
  }

  private async allocate({ pages: wanted, huge: wantsHuge, down, commits }: Step): Promise<void> {
    // The model visits every page: four chunks are several, and forty would be slow.
    const pages = this.file.totalSizeBytes >= 4 * CHUNK_SIZE ? 1 + (wanted % 3000) : wanted;
    // Committing hundreds of MiB takes as long as hundreds of steps.
    const willCommit = commits && pages <= 64;
    const huge = wantsHuge && pages <= 3000;
    const count = huge ? (1 + (pages % 4)) * HUGE_PAGES : pages;
    // With more waste, this MemoryFile may release some before it grows, at any time. The model
    // cannot follow that.
    if (this.naive.wastePages >= WASTE_PAGES_MAX) await this.settle();
    const sizeBefore = this.file.totalSizeBytes;
    const wasteBefore = willCommit ? this.naive.wastePages : 0;
    const start = this.naive.allocate({
      pages: count,
      huge,
      topDown: down,
      willCommit,
      kind: 1,
      group: 0,
    });
    const direction = down ? "topDown" : "bottomUp";
    const mode = willCommit ? "callerIndirectCommit" : "uncommitted";
    const range = this.file.allocate(count * PAGE_SIZE, { direction, huge, mode });
    expect(`${range}`).toBe(`${new FileRange(start * PAGE_SIZE, (start + count) * PAGE_SIZE)}`);
    this.allocations.push({ start, end: start + count, huge });
    reached[huge ? (down ? "hugeDown" : "hugeUp") : down ? "down" : "up"]++;
    if (this.file.totalSizeBytes > sizeBefore && sizeBefore > 0) reached.grown++;
    if (Math.floor(start / CHUNK_PAGES) !== Math.floor((start + count - 1) / CHUNK_PAGES))
      reached.acrossChunks++;
    if (willCommit && this.naive.wastePages < wasteBefore) reached.recycled++;
  }

  private refuse(op: Step["op"], range: FileRange): void {
    const before = this.file.dump();
    const method = {
      incRef: "incRef",
      decRef: "decRef",
      unique: "hasUniqueRef",
      shared: "firstSharedRange",
    } as const;
    expect(() => this.file[method[op as keyof typeof method]](range)).toThrow(RangeError);
    expect(this.file.dump()).toBe(before);
    reached.refused++;
  }

  private async settle(): Promise<void> {
    await this.file.released();
    this.naive.settle();
    const pages = this.naive.subReleasedPages;
    if (pages > this.subReleasedPages) reached.subReleased++;
    if (pages < this.subReleasedPages) reached.hugeFreedAfterSubRelease++;
    this.subReleasedPages = pages;
  }

  /** Everything at once; `toString` says the state of every page. */
  async finish(): Promise<void> {
    await this.settle();
    expect(comparableText(this.file)).toBe(comparableText(this.naive));
    this.file.destroy();
  }
}

test("random traces give the naive model's answers, and reach every operation", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(step, { minLength: 200, maxLength: 300, size: "max" }),
      async (steps) => {
        const replay = new Replay();
        try {
          for (const next of steps) await replay.run(next);
          await replay.finish();
        } finally {
          replay.file.destroy();
        }
      },
    ),
    { numRuns: 25, interruptAfterTimeLimit: 60_000, markInterruptAsFailure: true },
  );
  expect(Object.entries(reached).filter(([, count]) => count === 0)).toEqual([]);
}, 120_000);
