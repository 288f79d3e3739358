/**
 * Pages that are dropped while a load writes to them are held until the load is done with them.
 * Tests the allocator alone, with a scripted load.
 */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { Allocator } from "../../src/allocator/allocator.ts";
import { type Backing, Placement } from "../../src/allocator/backing.ts";
import { dumpRuns } from "../../src/allocator/dump.ts";
import { USED } from "../../src/allocator/states.ts";
import type { TableMemory } from "../../src/allocator/tables.ts";
import { WasteBatch } from "../../src/allocator/waste.ts";
import { PAGE_SIZE } from "../../src/index.ts";
import { checkInvariants } from "../../src/segment/invariants.ts";
import { createControl, Field, Word } from "../../src/control/control.ts";
import { setInterleavingHook } from "../../src/control/interleave.ts";
import { PAGES_PER_CHUNK } from "../../src/pages/units.ts";

let tables: TableMemory;
let allocator: Allocator;
let batch: WasteBatch;
/** First pages that the load is still writing to. */
const inFlight = new Set<number>();
const cancelled: string[] = [];

const backing: Backing = {
  grow: () => {},
  cancelLoad: (start, end) => {
    cancelled.push(`${start}-${end}`);
    return inFlight.has(start);
  },
  hasNoReads: (start) => !inFlight.has(start),
  nextData: (page) => page,
  nextTouched: (page) => page,
  uncommitted: () => {},
  recovered: () => {},
};

beforeEach(() => {
  const control = createControl();
  control.fields[Field.CapacityPages] = control.fields[Field.LimitPages] = 2 * PAGES_PER_CHUNK;
  control.words[Word.Loading] = 1;
  tables = Allocator.createTables(2 * PAGES_PER_CHUNK);
  allocator = new Allocator(control, tables, 0, backing);
  batch = new WasteBatch(allocator);
  inFlight.clear();
  cancelled.length = 0;
});

afterEach(() => {
  checkInvariants(allocator.set);
  allocator.detach();
  tables.unmap();
});

const allocate = (pages: number, how = 0) =>
  allocator.allocate(pages, USED, 0, how | Placement.Grow);

/** The state of the first `count` runs, in pages. */
function runs(count: number): string[] {
  const bytes = dumpRuns(allocator).split("\n").slice(0, count);
  return bytes.map((line) =>
    line.replace(/\d+(?=[,)])/g, (byte) => `${Number(byte) / PAGE_SIZE}`).replace(/ refs.*/, ""),
  );
}

function release(): number {
  let pages = 0;
  while (batch.take(PAGES_PER_CHUNK)) {
    pages += batch.pages;
    batch.finish();
  }
  return pages;
}

test("decRef holds the pages that a load writes to, and makes the rest waste", () => {
  expect(allocate(30)).toBe(0);
  inFlight.add(10);
  for (const start of [0, 10, 20]) expect(allocator.decRef(start, start + 10)).toBe(true);
  expect(cancelled).toEqual(["0-10", "10-20", "20-30"]);
  expect(runs(4)).toEqual([
    "[0, 10) waste",
    "[10, 20) held",
    "[20, 30) waste",
    `[30, ${PAGES_PER_CHUNK}) free`,
  ]);
});

test("held pages are not released, recycled, allocated or referenced", () => {
  allocate(30);
  inFlight.add(10);
  for (const start of [0, 10, 20]) allocator.decRef(start, start + 10);
  expect(allocate(20, Placement.Recycle)).toBe(30);
  expect(() => allocator.incRef(10, 20)).toThrow("to have a reference");
  expect(release()).toBe(20);
  expect(runs(3)).toEqual(["[0, 10) free", "[10, 20) held", "[20, 30) free"]);
  expect(allocate(20)).toBe(50);
});

test("held pages become waste after the load, then free with their neighbours", () => {
  allocate(30);
  inFlight.add(10);
  for (const start of [0, 10, 20]) allocator.decRef(start, start + 10);
  inFlight.clear();
  expect(release()).toBe(30);
  expect(runs(1)).toEqual([`[0, ${PAGES_PER_CHUNK}) free`]);
  expect(allocator.words[Word.HeldPages]).toBe(0);
  expect(allocator.words[Word.WastePages]).toBe(0);
});

test("held runs side by side become waste separately", () => {
  allocate(30);
  inFlight.add(0).add(20);
  for (const start of [0, 10, 20]) allocator.decRef(start, start + 10);
  inFlight.delete(0);
  expect(release()).toBe(20);
  expect(runs(2)).toEqual(["[0, 20) free", "[20, 30) held"]);
});

test("take finds the last held run among thousands, and releases the lock meanwhile", () => {
  const pages = 3000;
  for (let page = 0; page < pages; page++) allocator.allocate(1, USED, page % 2, Placement.Grow);
  inFlight.add(0).add(pages - 1);
  allocator.decRef(0, 1);
  allocator.decRef(pages - 1, pages);
  expect(release()).toBe(0);
  inFlight.clear();
  let holds = 0;
  setInterleavingHook((point) => {
    if (point === "lock: taken") holds++;
  });
  try {
    expect(release()).toBe(2);
  } finally {
    setInterleavingHook(undefined);
  }
  expect(holds).toBeGreaterThan(pages / 512);
  expect(allocator.words[Word.HeldPages]).toBe(0);
});
