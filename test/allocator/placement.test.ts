/**
 * The place of an allocation, as a table: state before, request, answer. In pages. A chunk is 1
 * GiB. The file is written as its runs from page 0 on: `used 4, free 4` means that pages 0 to 3 are
 * used, 4 to 7 are free, and the rest of the chunk is used.
 */
import { describe, expect, test } from "bun:test";
import {
  type AllocateOptions,
  CHUNK_SIZE,
  type FileRange,
  HUGE_PAGE_SIZE,
  MemoryFile,
  PAGE_SIZE,
} from "../../src/index.ts";

const CHUNK = CHUNK_SIZE / PAGE_SIZE;
const HUGE = HUGE_PAGE_SIZE / PAGE_SIZE;

interface Row {
  readonly name: string;
  /**
   * Runs of one or more chunks, each `used`, `free` or `waste` and a count of pages. The rest is
   * used.
   */
  readonly before: string;
  readonly beforeHuge?: boolean;
  readonly pages: number;
  readonly options?: AllocateOptions;
  /** First page of the answer. */
  readonly start: number;
  /** Chunks afterwards. */
  readonly chunks?: number;
}

const commit = { mode: "callerIndirectCommit" } as const;
const down = { direction: "topDown" } as const;
const huge = { huge: true } as const;

const rows: Row[] = [
  {
    name: "bottom-up takes the lowest gap",
    before: "used 4, free 4, used 4, free 4",
    pages: 2,
    start: 4,
  },
  {
    name: "and skips gaps that are too small",
    before: "used 4, free 4, used 4, free 8",
    pages: 5,
    start: 12,
  },
  {
    name: "a gap of exactly the size will do",
    before: "used 4, free 4, used 4, free 8",
    pages: 4,
    start: 4,
  },
  {
    name: "top-down takes the highest gap's end",
    before: "used 4, free 4, used 4, free 4",
    pages: 2,
    options: down,
    start: 14,
  },
  {
    name: "top-down skips, too",
    before: "used 4, free 8, used 4, free 4",
    pages: 5,
    options: down,
    start: 7,
  },
  { name: "uncommitted never takes waste", before: "waste 8, used 1, free 8", pages: 4, start: 9 },
  {
    name: "what will be committed takes waste before free pages",
    before: "free 8, used 1, waste 8",
    pages: 4,
    options: commit,
    start: 9,
  },
  {
    name: "top-down takes waste from its end",
    before: "free 8, used 1, waste 8",
    pages: 4,
    options: { ...commit, ...down },
    start: 13,
  },
  {
    name: "too little waste is left alone",
    before: "free 8, used 1, waste 3",
    pages: 4,
    options: commit,
    start: 0,
  },
  {
    name: "waste and free pages are not taken together",
    before: "free 3, waste 3, used 1, free 8",
    pages: 6,
    start: 7,
  },
  {
    name: "nothing fits: a chunk is added",
    before: "used 4, free 3",
    pages: 4,
    start: CHUNK,
    chunks: 2,
  },
  {
    name: "free pages at the end of the last chunk count",
    before: `used ${CHUNK - 4}, free 4`,
    pages: CHUNK + 4,
    start: CHUNK - 4,
    chunks: 2,
  },
  {
    name: "one page more, and two chunks are added",
    before: `used ${CHUNK - 4}, free 4`,
    pages: CHUNK + 5,
    start: CHUNK - 4,
    chunks: 3,
  },
  {
    name: "free pages that are not at the end do not count",
    before: `used 1, free 4`,
    pages: CHUNK,
    start: CHUNK,
    chunks: 2,
  },
  {
    name: "waste at the end does not count",
    before: `used ${CHUNK - 4}, waste 4`,
    pages: CHUNK,
    start: CHUNK,
    chunks: 2,
  },
  {
    name: "top-down in new chunks takes their end",
    before: "used 4",
    pages: 4,
    options: down,
    start: 2 * CHUNK - 4,
    chunks: 2,
  },
  {
    name: "huge pages never go where small ones are",
    before: "free 1024",
    pages: HUGE,
    options: huge,
    start: CHUNK,
    chunks: 2,
  },
  {
    name: "nor small pages where huge ones are",
    before: "free 1024",
    beforeHuge: true,
    pages: 1,
    start: CHUNK,
    chunks: 2,
  },
  {
    name: "huge pages are taken whole",
    before: `used ${HUGE}, free ${2 * HUGE}`,
    beforeHuge: true,
    pages: HUGE,
    options: huge,
    start: HUGE,
  },
  {
    name: "free huge pages at the end do not count for small ones",
    before: `used ${HUGE}, free ${CHUNK - HUGE}`,
    beforeHuge: true,
    pages: CHUNK,
    start: CHUNK,
    chunks: 2,
  },
];

/** A file in the state that `before` describes. */
async function fileWith(before: string, isHuge: boolean): Promise<MemoryFile> {
  const file = MemoryFile.create({ expectHugepages: true });
  const whole = file.allocate(CHUNK_SIZE, { huge: isHuge });
  const drop = { free: [] as FileRange[], waste: [] as FileRange[] };
  let page = 0;
  for (const run of before.split(", ")) {
    const [state, count] = run.split(" ") as ["used" | "free" | "waste", string];
    const end = page + Number(count);
    if (state !== "used")
      drop[state].push({ start: page * PAGE_SIZE, end: end * PAGE_SIZE } as FileRange);
    page = end;
  }
  expect(page).toBeLessThanOrEqual(whole.length / PAGE_SIZE);
  for (const range of drop.free) file.decRef(range);
  await file.released();
  for (const range of drop.waste) {
    file.view(range).fill(0xaa);
    file.decRef(range);
  }
  return file;
}

describe("placement", () => {
  for (const { name, before, beforeHuge, pages, options, start, chunks } of rows) {
    test(`${name}: ${before}; ${pages} pages`, async () => {
      using file = await fileWith(before, beforeHuge ?? false);
      const range = file.allocate(pages * PAGE_SIZE, options);
      expect(range.start / PAGE_SIZE).toBe(start);
      expect(range.length / PAGE_SIZE).toBe(pages);
      expect(file.totalSizeBytes / CHUNK_SIZE).toBe(chunks ?? 1);
    });
  }
});

test("allocate recycles pages that read as zero, and leaves the rest waste", async () => {
  using file = await fileWith("waste 8", false);
  const range = file.allocate(5 * PAGE_SIZE, commit);
  expect(range.start).toBe(0);
  expect(file.view(range).every((byte) => byte === 0)).toBe(true);
  expect(file.hasUniqueRef(range)).toBe(true);
  expect(file.dump().split("\n").slice(0, 2)).toEqual([
    `[0, ${5 * PAGE_SIZE}) used refs=1 kind=1 group=0`,
    `[${5 * PAGE_SIZE}, ${8 * PAGE_SIZE}) waste`,
  ]);
});

test("kind and group do not matter for placement, but keep runs apart", async () => {
  using file = await fileWith("free 8", false);
  const a = file.allocate(2 * PAGE_SIZE, { kind: 2, group: 7 });
  const b = file.allocate(2 * PAGE_SIZE, { kind: 2, group: 8 });
  const c = file.allocate(2 * PAGE_SIZE, { kind: 2, group: 8 });
  expect([a.start, b.start, c.start].map((start) => start / PAGE_SIZE)).toEqual([0, 2, 4]);
  expect(file.dump().split("\n").slice(0, 2)).toEqual([
    `[0, ${2 * PAGE_SIZE}) used refs=1 kind=2 group=7`,
    `[${2 * PAGE_SIZE}, ${6 * PAGE_SIZE}) used refs=1 kind=2 group=8`,
  ]);
});
