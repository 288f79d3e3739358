/**
 * usage() compared with other views of the kernel: st_blocks, mincore, SEEK_DATA, /proc/self/smaps.
 */
import { expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  mincore,
  seekData,
  seekHole,
  setFaultHook,
  syscallCounts,
  tryAdvise,
} from "../../ffi/index.ts";
import {
  DestroyedError,
  FileRange,
  HUGE_PAGE_SIZE,
  MemoryFile,
  MemoryKind,
  PAGE_SIZE,
} from "../../src/index.ts";
import { coreOf } from "../../src/file/memory-file.ts";
import { Field } from "../../src/control/control.ts";
import { plain, settledUsage } from "./support/settle.ts";

const pages = (first: number, last: number) => new FileRange(first * PAGE_SIZE, last * PAGE_SIZE);

/** Writes to each page of the range. */
function touch(file: MemoryFile, range: FileRange, step = 1): void {
  const view = file.view(range);
  for (let offset = 0; offset < view.length; offset += step * PAGE_SIZE) view[offset] = 1;
}

test("usage counts touched pages by kind and group", () => {
  using file = MemoryFile.create();
  const anonymous = file.allocate(10 * PAGE_SIZE);
  const cache = file.allocate(10 * PAGE_SIZE, { kind: MemoryKind.PageCache, group: 7 });
  const own = file.allocate(10 * PAGE_SIZE, { kind: 200, group: 2 ** 32 - 1 });
  expect(plain(file.usage())).toEqual({ total: 0, kinds: {}, groups: {} });
  touch(file, anonymous);
  touch(file, cache, 2);
  touch(file, new FileRange(own.start, own.start + PAGE_SIZE));
  expect(plain(file.usage()).total).toBe(0); // before the first look
  expect(file.updateUsage()).toBe(true);
  expect(plain(file.usage())).toEqual({
    total: 16 * PAGE_SIZE,
    kinds: {
      [MemoryKind.Anonymous]: 10 * PAGE_SIZE,
      [MemoryKind.PageCache]: 5 * PAGE_SIZE,
      200: PAGE_SIZE,
    },
    groups: { "0/1": 10 * PAGE_SIZE, "7/2": 5 * PAGE_SIZE, "4294967295/200": PAGE_SIZE },
  });
  expect(file.usage().totalBytes).toBe(file.totalUsageBytes);
});

test("updateUsage with groups finds only their memory", () => {
  using file = MemoryFile.create();
  for (const group of [1, 2, 1, 3]) touch(file, file.allocate(3 * PAGE_SIZE, { group }));
  expect(file.updateUsage([1])).toBe(true);
  expect(plain(file.usage()).groups).toEqual({ "1/1": 6 * PAGE_SIZE });
  expect(file.updateUsage(new Set([3, 9]))).toBe(true);
  expect(plain(file.usage()).groups).toEqual({ "1/1": 6 * PAGE_SIZE, "3/1": 3 * PAGE_SIZE });
  expect(plain(settledUsage(file)).groups).toEqual({
    "1/1": 6 * PAGE_SIZE,
    "2/1": 3 * PAGE_SIZE,
    "3/1": 3 * PAGE_SIZE,
  });
});

test("usage follows decommit, release and recycling without another scan", async () => {
  using file = MemoryFile.create();
  const a = file.allocate(8 * PAGE_SIZE, { group: 5 });
  const b = file.allocate(8 * PAGE_SIZE, { kind: MemoryKind.Tmpfs });
  touch(file, a);
  touch(file, b);
  file.updateUsage();
  file.decommit(pages(1, 3));
  expect(plain(file.usage()).groups).toEqual({ "5/1": 6 * PAGE_SIZE, "0/3": 8 * PAGE_SIZE });
  file.decRef(b); // waste is System memory until it is released
  expect(plain(file.usage()).groups).toEqual({ "5/1": 6 * PAGE_SIZE, "0/0": 8 * PAGE_SIZE });
  const recycled = file.allocate(5 * PAGE_SIZE, {
    mode: "callerIndirectCommit",
    kind: 9,
    group: 6,
  });
  expect(recycled.start).toBe(b.start);
  expect(plain(file.usage()).groups).toEqual({
    "5/1": 6 * PAGE_SIZE,
    "6/9": 5 * PAGE_SIZE,
    "0/0": 3 * PAGE_SIZE,
  });
  await file.released();
  expect(plain(file.usage()).groups).toEqual({ "5/1": 6 * PAGE_SIZE, "6/9": 5 * PAGE_SIZE });
  expect(file.usage().totalBytes).toBe(file.totalUsageBytes);
});

test("usage counts waste that was committed after the last scan as System memory", () => {
  using file = MemoryFile.create();
  const range = file.allocate(4 * PAGE_SIZE, { group: 3 });
  touch(file, range);
  file.decRef(range);
  expect(file.updateUsage()).toBe(true);
  expect(plain(file.usage()).groups).toEqual({ "0/0": 4 * PAGE_SIZE });
});

test("usage does not count sub-released pages of a huge page", async () => {
  using file = MemoryFile.create({ expectHugepages: true });
  const range = file.allocate(2 * HUGE_PAGE_SIZE, { huge: true, group: 1 });
  touch(file, range);
  file.updateUsage();
  file.decRef(new FileRange(range.start + PAGE_SIZE, range.start + 3 * PAGE_SIZE));
  await file.released();
  expect(file.dump()).toContain("sub-released");
  expect(plain(file.usage()).groups).toEqual({ "1/1": 2 * HUGE_PAGE_SIZE - 2 * PAGE_SIZE });
  expect(file.usage().totalBytes).toBe(file.totalUsageBytes);
});

test("allocate with commit makes pages known without a scan", () => {
  using file = MemoryFile.create();
  const range = file.allocate(6 * PAGE_SIZE, { mode: "commit", group: 4 });
  const { fd, base } = coreOf(file).mapping;
  const residency = new Uint8Array(6);
  mincore(base + range.start, range.length, residency);
  // The kernel's two oracles see nothing there. If a kernel changes this, the exception is
  // unnecessary.
  expect([seekData(fd, 0), residency.reduce((sum, byte) => sum + (byte & 1), 0)]).toEqual([-1, 0]);
  expect(plain(file.usage()).groups).toEqual({ "4/1": 6 * PAGE_SIZE });
  expect(file.totalUsageBytes).toBe(6 * PAGE_SIZE);
  file.decommit(range);
  expect([file.usage().totalBytes, file.totalUsageBytes]).toEqual([0, 0]);
});

test("usage equals st_blocks, mincore, SEEK_DATA and smaps", () => {
  using file = MemoryFile.create({ name: "four-oracles" });
  const range = file.allocate(3000 * PAGE_SIZE);
  for (const step of [2, 7])
    touch(file, new FileRange(range.start, range.start + 1000 * PAGE_SIZE), step);
  touch(file, new FileRange(range.start + 2000 * PAGE_SIZE, range.end));
  file.decommit(pages(2500, 2600));
  const { totalBytes } = settledUsage(file);
  const { fd, base } = coreOf(file).mapping;
  const residency = new Uint8Array(3000);
  mincore(base + range.start, range.length, residency);
  let soughtBytes = 0;
  for (let data = seekData(fd, 0); data >= 0; ) {
    const hole = seekHole(fd, data);
    soughtBytes += hole - data;
    data = seekData(fd, hole);
  }
  const smaps = readFileSync("/proc/self/smaps", "utf8");
  const rss = [...smaps.matchAll(/memfd:four-oracles[^\n]*\n(?:[A-Z][^\n]*\n)*?Rss:\s+(\d+) kB/g)];
  expect({
    stBlocks: file.totalUsageBytes,
    mincore: residency.reduce((sum, byte) => sum + (byte & 1), 0) * PAGE_SIZE,
    seekData: soughtBytes,
    smaps: rss.reduce((sum, match) => sum + Number(match[1]) * 1024, 0),
  }).toEqual({
    stBlocks: totalBytes,
    mincore: totalBytes,
    seekData: totalBytes,
    smaps: totalBytes,
  });
});

test("updateUsage finds memory in a second chunk behind an empty one", () => {
  using file = MemoryFile.create();
  file.allocate(2 ** 30);
  const far = file.allocate(2 ** 30, { group: 8 });
  touch(file, new FileRange(far.end - 2 * PAGE_SIZE, far.end));
  expect(file.updateUsage()).toBe(true);
  expect(plain(file.usage()).groups).toEqual({ "8/1": 2 * PAGE_SIZE });
});

test("usage counts chunks that the file grew by after the first scan", () => {
  using file = MemoryFile.create();
  touch(file, file.allocate(PAGE_SIZE));
  settledUsage(file);
  const far = file.allocate(2 ** 30, { group: 2 });
  touch(file, new FileRange(far.end - PAGE_SIZE, far.end));
  expect(plain(settledUsage(file)).groups).toEqual({ "0/1": PAGE_SIZE, "2/1": PAGE_SIZE });
});

test("updateUsage makes one call if all memory is known, and skips known pages otherwise", () => {
  using file = MemoryFile.create();
  const range = file.allocate(4096 * PAGE_SIZE);
  touch(file, range, 2);
  settledUsage(file);
  const before = { ...syscallCounts };
  expect(file.updateUsage()).toBe(false);
  expect(syscallCounts["lseek"]).toBe(before["lseek"]!);
  // One more page: a SEEK_DATA for each known extent. The first scan also needed a SEEK_HOLE for
  // each.
  touch(file, new FileRange(range.end - PAGE_SIZE, range.end));
  expect(file.updateUsage([0])).toBe(true);
  expect(syscallCounts["lseek"]! - before["lseek"]!).toBeLessThan(2048 + 10);
  expect(file.usage().totalBytes).toBe(2049 * PAGE_SIZE);
});

test("updateUsage limits full scans by their duration, and scans of groups not at all", () => {
  using file = MemoryFile.create();
  const range = file.allocate(64 * PAGE_SIZE, { group: 1 });
  touch(file, pages(0, 1));
  expect(file.updateUsage()).toBe(true);
  const { fields } = coreOf(file).control;
  expect(fields[Field.ScanTookMs]).toBeGreaterThan(0);
  // As if the file were very large: the next scan is due 8 minutes after this one began.
  fields[Field.ScanTookMs] = 60_000;
  touch(file, range);
  expect(file.updateUsage()).toBe(false);
  expect(file.usage().totalBytes).toBe(PAGE_SIZE);
  expect(file.updateUsage([1])).toBe(true);
  expect(file.usage().totalBytes).toBe(64 * PAGE_SIZE);
  touch(file, file.allocate(PAGE_SIZE));
  fields[Field.ScanBeganMs]! -= 7.9 * 60_000;
  expect(file.updateUsage()).toBe(false);
  fields[Field.ScanBeganMs]! -= 0.1 * 60_000;
  expect(file.updateUsage()).toBe(true);
  expect(file.usage().totalBytes).toBe(65 * PAGE_SIZE);
  fields[Field.ScanBeganMs]! += 3_600_000; // the clock was set back: no hour without a scan
  touch(file, file.allocate(PAGE_SIZE));
  expect(file.updateUsage()).toBe(true);
});

test("usage has the kinds and groups of a restored file's loaded pages", async () => {
  const directory = mkdtempSync(join(tmpdir(), "pgalloc-usage-"));
  try {
    const range = await (async () => {
      using file = MemoryFile.create();
      const range = file.allocate(4096 * PAGE_SIZE, { kind: MemoryKind.PageCache, group: 11 });
      touch(file, range);
      await file.saveTo(directory);
      return range;
    })();
    const stop = new AbortController();
    using file = await MemoryFile.loadFrom(directory, { background: true, signal: stop.signal });
    stop.abort(new Error("enough"));
    expect(file.awaitLoad()).rejects.toThrow("enough");
    // At any progress of the load, the known memory equals the memory that the kernel spends.
    expect(settledUsage(file).totalBytes).toBeLessThanOrEqual(range.length);
    using whole = await MemoryFile.loadFrom(directory);
    expect(plain(settledUsage(whole))).toEqual({
      total: range.length,
      kinds: { [MemoryKind.PageCache]: range.length },
      groups: { "11/2": range.length },
    });
  } finally {
    rmSync(directory, { recursive: true });
  }
});

const SWAP_BYTES =
  Number(/SwapTotal:\s+(\d+)/.exec(readFileSync("/proc/meminfo", "utf8"))![1]) * 1024;
const MADV_PAGEOUT = 21;

test.skipIf(SWAP_BYTES === 0)("usage counts pages that are swapped out", () => {
  using file = MemoryFile.create();
  const range = file.allocate(256 * PAGE_SIZE);
  touch(file, range);
  const { base } = coreOf(file).mapping;
  expect(tryAdvise(base + range.start, range.length, MADV_PAGEOUT)).toBe(0);
  expect(settledUsage(file).totalBytes).toBe(range.length);
});

test("updateUsage refuses bad groups, finds nothing for none, and throws after destroy", () => {
  const file = MemoryFile.create();
  touch(file, file.allocate(PAGE_SIZE));
  expect(() => file.updateUsage([-1])).toThrow(RangeError);
  expect(() => file.updateUsage([2 ** 32])).toThrow(RangeError);
  expect(() => file.updateUsage(["1"] as never)).toThrow(TypeError);
  expect(() => file.updateUsage(7 as never)).toThrow(TypeError);
  file.updateUsage([]);
  expect(file.usage().totalBytes).toBe(0);
  file.destroy();
  expect(() => file.updateUsage()).toThrow(DestroyedError);
  expect(() => file.usage()).toThrow(DestroyedError);
});

test("updateUsage throws if the kernel does, and works at the next call", () => {
  using file = MemoryFile.create();
  touch(file, file.allocate(PAGE_SIZE));
  let calls = 0;
  setFaultHook((syscall) => (syscall === "lseek" && ++calls === 2 ? { errno: 5 } : undefined));
  try {
    expect(() => file.updateUsage()).toThrow("EIO: lseek failed");
  } finally {
    setFaultHook(undefined);
  }
  expect(settledUsage(file).totalBytes).toBe(PAGE_SIZE);
});
