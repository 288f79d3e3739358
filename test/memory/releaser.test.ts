/**
 * The releaser, in system calls and in the kernel's figures: how often, when and how much it
 * punches.
 */
import { afterEach, expect, test } from "bun:test";
import { setFaultHook, syscallCounts } from "../../ffi/index.ts";
import { CHUNK_SIZE, type FileRange, MemoryFile, PAGE_SIZE } from "../../src/index.ts";

const MAX_PUNCH_BYTES = 128 * 1024 * 1024;

afterEach(() => setFaultHook(undefined));

/** Calls of each kind that `work` makes. */
async function callsOf(
  work: () => void | Promise<void>,
): Promise<{ punches: number; looks: number }> {
  const { fallocate = 0, lseek = 0 } = syscallCounts;
  await work();
  return {
    punches: (syscallCounts.fallocate ?? 0) - fallocate,
    looks: (syscallCounts.lseek ?? 0) - lseek,
  };
}

function allocateMany(file: MemoryFile, count: number, pages: number): FileRange[] {
  return Array.from({ length: count }, () => file.allocate(pages * PAGE_SIZE));
}

function touch(file: MemoryFile, ranges: readonly FileRange[]): void {
  for (const range of ranges) file.view(range)[0] = 1;
}

const everyOther = (ranges: readonly FileRange[]) => ranges.filter((_, i) => i % 2 === 0);

test("the releaser punches neighbours that were dropped one by one together", async () => {
  using file = MemoryFile.create();
  const ranges = allocateMany(file, 1000, 3);
  touch(file, ranges);
  const { punches } = await callsOf(async () => {
    for (const range of ranges) file.decRef(range);
    await file.released();
  });
  // The first punch is short, because its duration is not known yet.
  expect(punches).toBeLessThanOrEqual(3);
  expect(file.totalUsageBytes).toBe(0);
});

test("the releaser punches each of several separate ranges once, with one look", async () => {
  using file = MemoryFile.create();
  const ranges = allocateMany(file, 1000, 3);
  touch(file, ranges);
  const dropped = everyOther(ranges);
  const { punches, looks } = await callsOf(async () => {
    for (const range of dropped) file.decRef(range);
    await file.released();
  });
  expect(punches).toBeLessThanOrEqual(dropped.length + 2);
  expect(looks).toBeLessThanOrEqual(dropped.length + 2);
  expect(file.totalUsageBytes).toBe(500 * PAGE_SIZE);
});

test("the releaser punches no untouched page, and looks a few times at 1,000 ranges", async () => {
  using file = MemoryFile.create();
  const dropped = everyOther(allocateMany(file, 10_000, 3));
  const { punches, looks } = await callsOf(async () => {
    for (const range of dropped) file.decRef(range);
    await file.released();
  });
  expect(punches).toBe(0);
  expect(looks).toBeLessThanOrEqual(dropped.length / 250);
});

test("the releaser finds one touched page among untouched ranges", async () => {
  using file = MemoryFile.create();
  const dropped = everyOther(allocateMany(file, 2000, 3));
  touch(file, [dropped[700]!, dropped[999]!]);
  const { punches } = await callsOf(async () => {
    for (const range of dropped) file.decRef(range);
    await file.released();
  });
  expect(punches).toBe(2);
  expect(file.totalUsageBytes).toBe(0);
});

test("released returns committed memory that was never touched", async () => {
  using file = MemoryFile.create();
  const ranges = Array.from({ length: 20 }, () => file.allocate(4 * PAGE_SIZE, { mode: "commit" }));
  expect(file.totalUsageBytes).toBe(80 * PAGE_SIZE);
  for (const range of everyOther(ranges)) file.decRef(range);
  await file.released();
  expect(file.totalUsageBytes).toBe(40 * PAGE_SIZE);
});

test("the releaser punches waste without a look if the look fails", async () => {
  using file = MemoryFile.create();
  const ranges = allocateMany(file, 40, 2);
  touch(file, ranges);
  setFaultHook((syscall) => (syscall === "lseek" ? { errno: 22 } : undefined));
  for (const range of everyOther(ranges)) file.decRef(range);
  await file.released();
  setFaultHook(undefined);
  expect(file.totalUsageBytes).toBe(20 * PAGE_SIZE);
});

test("the releaser punches at most 128 MiB at once", async () => {
  using file = MemoryFile.create();
  const range = file.allocate(2 * CHUNK_SIZE);
  for (let at = range.start; at < range.end; at += 64 * 1024 * 1024)
    file.view({ start: at, end: at + PAGE_SIZE })[0] = 1;
  const lengths: number[] = [];
  setFaultHook((syscall, _fd, _offset, lengthBytes) => {
    if (syscall === "fallocate") lengths.push(lengthBytes);
    return undefined;
  });
  const { punches } = await callsOf(async () => {
    file.decRef(range);
    await file.released();
  });
  expect(file.totalUsageBytes).toBe(0);
  // Shorter ones come first, and again after a slow one. Pages before the first touched page of a
  // look are not punched.
  expect(punches).toBe(lengths.length);
  expect(lengths.reduce((sum, length) => sum + length, 0)).toBeGreaterThan(
    2 * CHUNK_SIZE - MAX_PUNCH_BYTES,
  );
  expect(Math.max(...lengths)).toBeLessThanOrEqual(MAX_PUNCH_BYTES);
});

test("allocate releases waste in a program that never awaits, and decRef does not", () => {
  using file = MemoryFile.create();
  const kept = allocateMany(file, 64, 1024);
  let punchesInDecRef = 0;
  let punches = 0;
  for (let i = 0; i < 3000; i++) {
    const at = i % kept.length;
    file.view(kept[at]!)[0] = 1;
    const before = syscallCounts.fallocate ?? 0;
    file.decRef(kept[at]!);
    const between = syscallCounts.fallocate ?? 0;
    punchesInDecRef += between - before;
    kept[at] = file.allocate(1024 * PAGE_SIZE);
    punches += (syscallCounts.fallocate ?? 0) - between;
  }
  expect(punchesInDecRef).toBe(0);
  // 12 GiB went through a file of one chunk: an allocation that would make it grow releases first.
  expect(punches).toBeGreaterThan(0);
  expect(file.totalSizeBytes).toBeLessThanOrEqual(2 * CHUNK_SIZE);
});
