/** The figures of a mapped file's memory, compared with the kernel's after every step. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { tryAdvise } from "../../ffi/index.ts";
import { MemoryFile, PAGE_SIZE } from "../../src/index.ts";
import { coreOf } from "../../src/file/memory-file.ts";
import { all, PAGES, pages, saveDense } from "./support/mapped-image.ts";
import { memoryFileBytes, smapsOf } from "./support/mapped-smaps.ts";

const MADV_PAGEOUT = 21;

let root: string;
beforeAll(async () => {
  root = mkdtempSync(join(tmpdir(), "pgalloc-mapped-usage-"));
  await saveDense(join(root, "dense"));
});
afterAll(() => rmSync(root, { recursive: true }));

const STEPS = [
  "write",
  "read",
  "decommit",
  "free",
  "allocate",
  "reclaim",
  "save",
  "refresh",
] as const;

/** A file, the pages of its image that are still in use, and what a step may do to them. */
class Program {
  readonly freed = new Set<number>();

  constructor(
    readonly file: MemoryFile,
    readonly place: string,
  ) {}

  /** The first pages of [first, first + count) that are in use. */
  live(first: number, count: number) {
    let length = 0;
    while (length < count && first + length < PAGES && !this.freed.has(first + length)) length++;
    return length === 0 ? undefined : pages(first, length);
  }

  readonly steps = {
    write: (first: number, count: number) => {
      const range = this.live(first, count);
      if (range !== undefined) this.file.view(range).fill(count);
    },
    read: (first: number, count: number) => {
      const range = this.live(first, count);
      if (range !== undefined) this.file.view(range).indexOf(256);
    },
    decommit: (first: number, count: number) => {
      const range = this.live(first, count);
      if (range !== undefined) this.file.decommit(range);
    },
    free: async (first: number, count: number) => {
      const range = this.live(first, count);
      if (range === undefined) return;
      this.file.decRef(range);
      for (let at = range.start; at < range.end; at += PAGE_SIZE) this.freed.add(at / PAGE_SIZE);
      await this.file.released();
    },
    allocate: (_first: number, count: number) => {
      const { start, end } = this.file.allocate(count * PAGE_SIZE);
      this.file.view({ start, end }).fill(1);
      for (let at = start; at < end; at += PAGE_SIZE) this.freed.delete(at / PAGE_SIZE);
    },
    reclaim: () => {
      tryAdvise(coreOf(this.file).mapping.base, all.end, MADV_PAGEOUT);
    },
    save: async () => {
      await this.file.saveTo(this.place);
    },
    refresh: async () => {
      await this.file.saveTo(this.place);
      await this.file.refresh();
    },
  };
}

test("usage and totalUsageBytes say what the kernel says, after any step", async () => {
  const stepOf = fc.record({
    name: fc.constantFrom(...STEPS),
    first: fc.nat(PAGES - 1),
    count: fc.oneof(fc.integer({ min: 1, max: 8 }), fc.integer({ min: 1, max: 700 })),
  });
  let run = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.array(stepOf, { minLength: 10, maxLength: 25 }),
      fc.boolean(),
      async (steps, verify) => {
        const place = join(root, `run-${run++}`);
        cpSync(join(root, "dense"), place, { recursive: true });
        using file = await MemoryFile.loadFrom(place, { mapped: true, verify });
        const program = new Program(file, place);
        for (const { name, first, count } of steps) {
          await program.steps[name](first, count);
          expect(file.usage()).toMatchObject(smapsOf(file));
          expect(file.totalUsageBytes).toBe(memoryFileBytes(file));
        }
        // A scan is not repeated at once.
        while (file.usage().totalBytes !== file.totalUsageBytes) {
          file.updateUsage();
          await Bun.sleep(1);
        }
        rmSync(place, { recursive: true });
      },
    ),
    { numRuns: 8 },
  );
});
