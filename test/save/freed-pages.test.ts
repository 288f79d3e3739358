/** Pages that are freed during a save or an export without an instant never return as zeros. */
import { afterAll, afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { exportTo, importFrom } from "../../src/gvisor/index.ts";
import { type FileRange, HUGE_PAGE_SIZE, MemoryFile, PAGE_SIZE } from "../../src/index.ts";
import { splitAtFreed, withoutFreed } from "../../src/save/freed-pages.ts";
import { SUB_RELEASED, USED } from "../../src/allocator/states.ts";
import { terminateIdleThreads } from "../../src/threads/idle.ts";

const FILLED_BYTES = 64 * 2 ** 20;
let directory: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "pgalloc-freed-"));
});
afterEach(() => rmSync(directory, { recursive: true }));
afterAll(() => terminateIdleThreads());

const columns = (...rows: [start: number, length: number][]) => ({
  start: Uint32Array.from(rows, ([start]) => start),
  length: Uint32Array.from(rows, ([, length]) => length),
});

test("splitAtFreed visits each part of each run once, in order", () => {
  const freed = columns([2, 1], [5, 5], [20, 10]);
  const parts: [number, number, boolean][] = [];
  let next = 0;
  for (const run of [
    [0, 4],
    [4, 8],
    [8, 12],
    [12, 20],
    [25, 26],
  ] as const)
    next = splitAtFreed(freed, next, run, (...part) => parts.push(part));
  expect(parts).toEqual([
    [0, 2, false],
    [2, 3, true],
    [3, 4, false],
    [4, 5, false],
    [5, 8, true],
    [8, 10, true],
    [10, 12, false],
    [12, 20, false],
    [25, 26, true],
  ]);
});

test("withoutFreed takes freed pages out of used runs", () => {
  const runs = {
    ...columns([0, 10], [10, 4], [512, 8]),
    state: Uint32Array.of(USED, USED, USED),
    refs: Uint32Array.of(3, 5, 1),
    kind: Uint32Array.of(1, 0, 2),
    group: Uint32Array.of(7, 0, 9),
  };
  const chunkHuge = Uint8Array.of(0);
  expect(withoutFreed({ chunkHuge, runs }, columns())).toBe(runs);
  expect(withoutFreed({ chunkHuge, runs }, columns([2, 3], [512, 8]))).toEqual({
    ...columns([0, 2], [5, 5], [10, 4]),
    state: Uint32Array.of(USED, USED, USED),
    refs: Uint32Array.of(3, 3, 5),
    kind: Uint32Array.of(1, 1, 0),
    group: Uint32Array.of(7, 7, 0),
  });
});

test("withoutFreed sub-releases freed parts of huge pages, and frees whole ones", () => {
  const runs = {
    ...columns([0, 100], [100, 50], [150, 2000]),
    state: Uint32Array.of(USED, SUB_RELEASED, USED),
    refs: Uint32Array.of(1, 0, 1),
    kind: Uint32Array.of(1, 0, 1),
    group: Uint32Array.of(0, 0, 0),
  };
  expect(withoutFreed({ chunkHuge: Uint8Array.of(1), runs }, columns([150, 1000]))).toEqual({
    ...columns([0, 100], [100, 412], [1024, 126], [1150, 1000]),
    state: Uint32Array.of(USED, SUB_RELEASED, SUB_RELEASED, USED),
    refs: Uint32Array.of(1, 0, 0, 1),
    kind: Uint32Array.of(1, 0, 0, 1),
    group: Uint32Array.of(0, 0, 0, 0),
  });
});

test("a part of a huge page that is waste at the instant is sub-released", async () => {
  using file = MemoryFile.create({ expectHugepages: true });
  const range = file.allocate(2 * HUGE_PAGE_SIZE, { huge: true });
  file.view(range).fill(1);
  const userData = () => {
    file.decRef({ start: range.start + 10 * PAGE_SIZE, end: range.end });
    return new Uint8Array(0);
  };
  await file.saveTo(directory, { userData });
  using back = await MemoryFile.loadFrom(directory, { expectHugepages: true });
  // A free part of a huge page would be handed out, as the beginning of an unaligned range.
  expect(back.allocate(HUGE_PAGE_SIZE, { huge: true }).start % HUGE_PAGE_SIZE).toBe(0);
  expect(back.dump()).toContain("sub-released");
});

/** The page's first byte; undefined if the page is not used. */
function firstByte(file: MemoryFile, { start, end }: FileRange): number | undefined {
  try {
    return file.view({ start, end })[0];
  } catch (error) {
    if (error instanceof RangeError) return undefined;
    throw error;
  }
}

const unsynced = { consistent: false } as const;
describe.each([
  ["exportTo", exportTo, importFrom],
  [
    "saveTo with consistent: false",
    (file: MemoryFile, where: string) => file.saveTo(where, unsynced),
    MemoryFile.loadFrom,
  ],
] as const)("%s", (_, save, load) => {
  test("leaves out pages that are freed before they are stored", async () => {
    using file = MemoryFile.create({ expectHugepages: true });
    file.view(file.allocate(FILLED_BYTES)).fill(1);
    const small = file.allocate(PAGE_SIZE);
    const huge = file.allocate(HUGE_PAGE_SIZE, { huge: true });
    file.view(small)[0] = 7;
    file.view(huge).fill(8);
    const saving = save(file, directory);
    await new Promise((resolve) => setImmediate(resolve));
    file.decRef(small);
    file.decRef({ start: huge.start, end: huge.end - PAGE_SIZE });
    await saving;
    await file.released();
    using back = await load(directory, { expectHugepages: true });
    expect([7, undefined]).toContain(firstByte(back, small));
    expect([8, undefined]).toContain(
      firstByte(back, { ...huge, end: huge.start + PAGE_SIZE } as never),
    );
    const last = { start: huge.end - PAGE_SIZE, end: huge.end };
    expect(back.view(last)[0]).toBe(8);
    back.decRef(last);
    await back.released();
  });
});
