/** The cost of the tables' views: the collector counts all bytes of a view, touched or not. */
import { heapStats } from "bun:jsc";
import { afterEach, expect, spyOn, test } from "bun:test";
import { TableMemory } from "../../src/allocator/tables.ts";
import type { SegmentTables } from "../../src/segment/layout.ts";
import { CHUNK_SIZE, MemoryFile, MemoryKind, PAGE_SIZE } from "../../src/index.ts";

const MIB = 2 ** 20;

const view = spyOn(TableMemory.prototype, "view");
afterEach(() => {
  view.mockClear();
});

test("view makes new views when the file is twice as large, not for each chunk", () => {
  using file = MemoryFile.create();
  for (let chunk = 0; chunk < 65; chunk++) file.allocate(CHUNK_SIZE);
  // For 4, 8, 16, 32, 64 and 128 chunks.
  expect(view).toHaveBeenCalledTimes(6);
});

test("view leaves out tables that no page needs", async () => {
  Bun.gc(true);
  const before = heapStats().extraMemorySize;
  using file = MemoryFile.create();
  const bytes = () => heapStats().extraMemorySize - before;
  const common = file.allocate(PAGE_SIZE);
  expect(bytes()).toBeLessThan(3.5 * MIB);
  file.decRef(common);
  await file.released();
  // Small and huge waste have been searched for.
  expect(bytes()).toBeLessThan(6.5 * MIB);
  const owned = file.allocate(PAGE_SIZE, { kind: MemoryKind.Ramdiskfs, group: 7 });
  expect(file.dump()).toContain("group=7");
  file.incRef(owned);
  // Twelve bytes for each page of 4 GiB.
  expect(bytes()).toBeGreaterThan(12 * MIB);
});

test("destroy detaches the views of all tables", () => {
  const file = MemoryFile.create();
  file.allocate(PAGE_SIZE);
  const value = view.mock.results[0]!.value as SegmentTables;
  file.destroy();
  expect(value.owners()).toHaveLength(0);
  expect(value.summary(2)).toHaveLength(0);
});
