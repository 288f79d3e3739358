/** What is read first when several wait: which unit `takeDemand` gives next, and who reads while threads still start. */
import { expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { addressOf, closeFile, isCached, openFile, readAt, setFaultHook } from "../../ffi/index.ts";
import { FileRange, MemoryFile, PAGE_SIZE } from "../../src/index.ts";
import { LoadState, LoadWord, PAGES_PER_UNIT, WORDS_PER_UNIT } from "../../src/load/load-state.ts";
import { coreOf } from "../../src/memory-file.ts";
import { bitCount } from "../../src/shared/bits.ts";
import { heldLoad } from "../threads/support/held-load.ts";

const UNITS = 256;

function denseState(): LoadState {
  return LoadState.create({
    sizePages: UNITS * PAGES_PER_UNIT,
    extentStart: Uint32Array.of(0),
    extentLength: Uint32Array.of(UNITS * PAGES_PER_UNIT),
    extentOffset: 0,
    checksums: null,
  });
}

function takeAll(state: LoadState): number[] {
  const want = new Int32Array(WORDS_PER_UNIT);
  const units: number[] = [];
  for (let unit = state.takeDemand(want); unit >= 0; unit = state.takeDemand(want)) units.push(unit);
  return units;
}

test("a page that is wanted last does not stand behind a long range that was wanted before", () => {
  const state = denseState();
  const want = new Int32Array(WORDS_PER_UNIT);
  state.demand(0, 200 * PAGES_PER_UNIT);
  expect(state.takeDemand(want)).toBe(0);
  expect(state.takeDemand(want)).toBe(1);
  state.demand(220 * PAGES_PER_UNIT + 7, 220 * PAGES_PER_UNIT + 8);
  expect(state.takeDemand(want)).toBe(220);
  expect([...want].filter((word) => word !== 0)).toEqual([1 << 7]);
  expect(takeAll(state)).toHaveLength(198);
});

test("demands are taken in turn: a long range that is wanted later does not go before what is left of an earlier one", () => {
  const state = denseState();
  const want = new Int32Array(WORDS_PER_UNIT);
  state.demand(100 * PAGES_PER_UNIT, 200 * PAGES_PER_UNIT);
  for (let i = 0; i < 40; i++) state.takeDemand(want);
  state.demand(0, 90 * PAGES_PER_UNIT);
  const units = takeAll(state);
  expect(units[0]).toBe(0);
  expect(units.indexOf(199)).toBeLessThan(units.indexOf(32));
  expect(units.toSorted((a, b) => a - b)).toEqual([
    ...Array.from({ length: 90 }, (_, i) => i),
    ...Array.from({ length: 60 }, (_, i) => 140 + i),
  ]);
});

test("a page that is awaited where no thread serves demands is read at once, in the waiting thread", async () => {
  const directory = mkdtempSync(join(tmpdir(), "pgalloc-demand-"));
  const file = MemoryFile.create();
  const range = file.allocate(64 * 2 ** 20);
  file.view(range, Float64Array).fill(3);
  await file.saveTo(directory);
  file.destroy();
  using back = await MemoryFile.loadFrom(directory, { background: true, queue: "inline" });
  const page = new FileRange(range.end - PAGE_SIZE, range.end);
  const waiting = back.awaitLoad(page);
  expect(back.isLoaded(page)).toBe(true);
  await waiting;
  expect(back.view(page, Float64Array)[5]).toBe(3);
  await back.awaitLoad();
  rmSync(directory, { recursive: true });
});

/** Linux before 6.5 does not say what is in the page cache. */
function tellsCached(): boolean {
  const fd = openFile(import.meta.path, 0);
  readAt(fd, addressOf(new Uint8Array(new ArrayBuffer(16))), 16, 0);
  const cached = isCached(fd, 0, 16);
  closeFile(fd);
  return cached;
}

test.skipIf(!tellsCached())(
  "beside a demand thread, the waiting thread reads a short range itself if it is in the page cache, and nothing else",
  async () => {
    const load = await heldLoad();
    const { file, page, state } = load;
    const { fd } = coreOf(file).loader!;
    const { start, end } = state.spanOf(page.start / PAGE_SIZE, page.end / PAGE_SIZE);
    const unit = Math.floor(page.start / PAGE_SIZE / PAGES_PER_UNIT);
    const wanted = new Int32Array(WORDS_PER_UNIT);
    // As if one served; what is demanded stays demanded.
    Atomics.store(state.words, LoadWord.DemandServed, 1);
    load.giveBack();
    const waiting: Promise<void>[] = [];
    const isReadNow = (range: FileRange) => {
      waiting.push(file.awaitLoad(range));
      return file.isLoaded(page);
    };

    setFaultHook((call) => (call === "cachestat" ? { errno: 38 } : undefined));
    expect(isReadNow(page)).toBe(false);
    setFaultHook(undefined);
    expect(state.takeDemand(wanted)).toBe(unit);
    expect(bitCount(wanted[0]!)).toBe(1);

    expect(readAt(fd, addressOf(new Uint8Array(new ArrayBuffer(PAGE_SIZE))), PAGE_SIZE, start)).toBe(end - start);
    const long = new FileRange(page.start, page.start + 65 * PAGE_SIZE);
    expect(isReadNow(long)).toBe(false);
    expect(state.takeDemand(wanted)).toBe(unit);

    await new Promise((resolve) => setImmediate(resolve));
    expect(isReadNow(page)).toBe(true);
    expect(file.view(page)[7]).toBe(9);
    file.awaitLoadSync(long);
    await Promise.all(waiting);
    load.finish();
    load.end();
  },
);

test.skipIf(!tellsCached())(
  "beside a demand thread, awaits of one turn read for two milliseconds, and ask it for the rest",
  async () => {
    const load = await heldLoad();
    const { file, page, state } = load;
    const { fd } = coreOf(file).loader!;
    const firstPage = page.start / PAGE_SIZE;
    const { start, end } = state.spanOf(firstPage, firstPage + 4);
    expect(readAt(fd, addressOf(new Uint8Array(new ArrayBuffer(end - start))), end - start, start)).toBe(end - start);
    load.giveBack();
    const waiting: Promise<void>[] = [];
    const isReadNow = (index: number) => {
      const from = page.start + index * PAGE_SIZE;
      const range = new FileRange(from, from + PAGE_SIZE);
      waiting.push(file.awaitLoad(range));
      return file.isLoaded(range);
    };
    Atomics.store(state.words, LoadWord.DemandServed, 1);
    expect(isReadNow(0)).toBe(true);
    Bun.sleepSync(3);
    expect(isReadNow(1)).toBe(false);
    expect(state.takeDemand(new Int32Array(WORDS_PER_UNIT))).toBeGreaterThan(0);
    await new Promise((resolve) => setImmediate(resolve));
    expect(isReadNow(1)).toBe(true);
    // As long as nobody serves, waiting for somebody who does would take longer than any read.
    Atomics.store(state.words, LoadWord.DemandServed, 0);
    Bun.sleepSync(3);
    expect(isReadNow(2)).toBe(true);
    await Promise.all(waiting);
    load.finish();
    load.end();
  },
);

test("the span of pages in the pages file: from the first contents to the last, whatever lies between", () => {
  const state = LoadState.create({
    sizePages: 4 * PAGES_PER_UNIT,
    extentStart: Uint32Array.of(10, 20, 3 * PAGES_PER_UNIT),
    extentLength: Uint32Array.of(5, 2, 8),
    extentOffset: 4096,
    checksums: null,
  });
  const pagesOf = (start: number, end: number) => {
    const span = state.spanOf(start, end);
    return [span.start / PAGE_SIZE - 1, span.end / PAGE_SIZE - 1];
  };
  expect(pagesOf(10, 15)).toEqual([0, 5]);
  expect(pagesOf(12, 14)).toEqual([2, 4]);
  expect(pagesOf(0, 40)).toEqual([0, 7]);
  expect(pagesOf(14, 21)).toEqual([4, 6]);
  expect(pagesOf(2 * PAGES_PER_UNIT - 1, 3 * PAGES_PER_UNIT + 2)).toEqual([7, 9]);
  expect(state.spanOf(15, 20)).toEqual({ start: 0, end: 0 });
  expect(state.spanOf(PAGES_PER_UNIT, 2 * PAGES_PER_UNIT)).toEqual({ start: 0, end: 0 });
});
