/**
 * The order of reads if several threads wait: the unit that `takeDemand` returns next, and the
 * thread that reads while others start.
 */
import { expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { syscallCounts } from "../../ffi/index.ts";
import { FileRange, type LoadQueue, MemoryFile, PAGE_SIZE } from "../../src/index.ts";
import type { LoadState } from "../../src/load/load-state.ts";
import { PAGES_PER_UNIT, WORDS_PER_UNIT } from "../../src/load/load-tables.ts";
import { DEPTH_MAX, SLOTS } from "../../src/load/load-tables.ts";
import { MAX_PARTICIPANTS } from "../../src/control/control.ts";
import { terminateIdleThreads } from "../../src/threads/idle.ts";
import { denseState } from "./support/dense-state.ts";

/** Reads that this thread has made. */
function ownReads(): number {
  return (syscallCounts["pread"] ?? 0) + (syscallCounts["preadv"] ?? 0);
}

const range = new FileRange(0, 64 * 2 ** 20);

/** A file whose load has just begun: 3 throughout `range`. */
async function restore(queue: LoadQueue): Promise<MemoryFile> {
  const directory = mkdtempSync(join(tmpdir(), "pgalloc-demand-"));
  const file = MemoryFile.create();
  expect(file.allocate(range.length)).toEqual(range);
  file.view(range, Float64Array).fill(3);
  await file.saveTo(directory);
  file.destroy();
  // Threads of an earlier load would be ready at once.
  await terminateIdleThreads();
  const back = await MemoryFile.loadFrom(directory, { background: true, queue });
  // Open files stay readable.
  rmSync(directory, { recursive: true });
  return back;
}

function takeAll(state: LoadState): number[] {
  const want = new Int32Array(WORDS_PER_UNIT);
  const units: number[] = [];
  for (let unit = state.demands.take(want); unit >= 0; unit = state.demands.take(want))
    units.push(unit);
  return units;
}

test("take does not delay a page behind a long range that was wanted before", () => {
  const state = denseState(256);
  const want = new Int32Array(WORDS_PER_UNIT);
  state.demands.demand(0, 200 * PAGES_PER_UNIT);
  expect(state.demands.take(want)).toBe(0);
  expect(state.demands.take(want)).toBe(1);
  state.demands.demand(220 * PAGES_PER_UNIT + 7, 220 * PAGES_PER_UNIT + 8);
  expect(state.demands.take(want)).toBe(220);
  expect([...want].filter((word) => word !== 0)).toEqual([1 << 7]);
  expect(takeAll(state)).toHaveLength(198);
});

test("take serves demands in turn: a long later range does not overtake an earlier one", () => {
  const state = denseState(256);
  const want = new Int32Array(WORDS_PER_UNIT);
  state.demands.demand(100 * PAGES_PER_UNIT, 200 * PAGES_PER_UNIT);
  for (let i = 0; i < 40; i++) state.demands.take(want);
  state.demands.demand(0, 90 * PAGES_PER_UNIT);
  const units = takeAll(state);
  expect(units[0]).toBe(0);
  expect(units.indexOf(199)).toBeLessThan(units.indexOf(32));
  expect(units.toSorted((a, b) => a - b)).toEqual([
    ...Array.from({ length: 90 }, (_, i) => i),
    ...Array.from({ length: 60 }, (_, i) => 140 + i),
  ]);
});

test("takeSlot has a slot for every claim of every thread", () => {
  const state = denseState(1);
  const slots = Array.from({ length: SLOTS }, () => state.takeSlot());
  expect(SLOTS).toBeGreaterThanOrEqual(2 * MAX_PARTICIPANTS + 2 * DEPTH_MAX);
  expect(new Set(slots).size).toBe(slots.length);
  expect(() => state.takeSlot()).toThrow("claims at once");
  state.freeSlot(slots[7]!);
  expect(state.takeSlot()).toBe(slots[7]!);
});

test("awaitLoad reads up to 2 MiB itself until a thread serves demands", async () => {
  using back = await restore("workers");
  const most = new FileRange(
    range.start + 2 ** 25 + PAGE_SIZE,
    range.start + 2 ** 25 + 2 ** 21 + PAGE_SIZE,
  );
  const more = new FileRange(most.end, most.end + 2 ** 21 + PAGE_SIZE);
  const before = ownReads();
  const waiting = [back.awaitLoad(more)];
  expect(ownReads()).toBe(before);
  waiting.push(back.awaitLoad(most));
  expect(back.isLoaded(most)).toBe(true);
  await Promise.all(waiting);
  expect(back.view(more, Float64Array).at(-1)).toBe(3);
});

test("awaitLoad of many pages at once reads them in several turns of the event loop", async () => {
  using back = await restore("workers");
  // The last first, because the background pass begins at the other end.
  const pieces = Array.from(
    { length: 64 },
    (_, i) => new FileRange((63 - i) * 2 ** 20, (64 - i) * 2 ** 20),
  );
  const before = ownReads();
  const waiting = pieces.map((piece) => back.awaitLoad(piece));
  expect(back.isLoaded(pieces[0]!)).toBe(true);
  expect(ownReads() - before).toBeLessThan(64);
  // An aborted wait is answered at once, and those behind it are read all the same.
  const controller = new AbortController();
  const givenUp = back
    .awaitLoad(pieces[62], { signal: controller.signal })
    .catch((reason: unknown) => reason);
  controller.abort("enough");
  // Unless the background pass has loaded it before.
  const possible: unknown[] = back.isLoaded(pieces[62]!) ? ["enough", undefined] : ["enough"];
  expect(possible).toContain(await givenUp);
  await Promise.all(waiting);
  expect(back.isLoaded(range)).toBe(true);
});

test("awaitLoad reads a page itself if no thread serves demands", async () => {
  using back = await restore("inline");
  const page = new FileRange(range.end - PAGE_SIZE, range.end);
  const waiting = back.awaitLoad(page);
  expect(back.isLoaded(page)).toBe(true);
  await waiting;
  expect(back.view(page, Float64Array)[5]).toBe(3);
  await back.awaitLoad();
});
