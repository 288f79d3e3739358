/** Structures that lose what they have give their memory back. */
import { afterAll, expect, test } from "bun:test";
import { join } from "node:path";
import { Store } from "../../src/data/index.ts";
import { Root } from "../../src/data/layout.ts";
import { arenaOf, failAtEachStep, sortedEntries, temporaryDirectory } from "./support/support.ts";

const directory = temporaryDirectory();
afterAll(directory.remove);
let count = 0;
const newStore = (options = {}): Promise<Store> =>
  Store.open(join(directory.path, `${count++}`), { create: true, ...options });
const one = new Uint8Array([1]);
const usedPages = (store: Store): number => arenaOf(store).root[Root.UsedPages]!;

test("delete merges buckets, and the last entries are all found", async () => {
  using store = await newStore();
  const map = store.map("m", { key: "u32" });
  for (let i = 0; i < 60_000; i++) map.set(i, one);
  const most = usedPages(store);
  for (let i = 600; i < 60_000; i++) expect(map.delete(i)).toBe(true);
  expect(usedPages(store)).toBeLessThan(most / 10);
  expect([...map.keys()].sort((a, b) => a - b)).toEqual(Array.from({ length: 600 }, (_, i) => i));
  for (let i = 0; i < 60_000; i++) if (map.has(i) !== i < 600) throw new Error(`${i}`);
  for (let i = 0; i < 60_000; i++) map.set(i, one);
  expect([map.size, [...map].length]).toEqual([60_000, 60_000]);
});

test("iteration while buckets are merged yields each lasting entry exactly once", async () => {
  using store = await newStore();
  const map = store.map("m", { key: "u32" });
  for (let i = 0; i < 20_000; i++) map.set(i, one);
  const seen = new Map<number, number>();
  let step = 0;
  for (const key of map.keys()) {
    seen.set(key, (seen.get(key) ?? 0) + 1);
    // At several points most of what is left goes, so that buckets left and right are merged.
    if (step++ % 200 === 100)
      for (let i = step; i < 20_000; i += 3) if (i % 25 !== 0) map.delete(i);
  }
  for (let i = 0; i < 20_000; i += 25) expect(seen.get(i)).toBe(1);
  for (const times of seen.values()) expect(times).toBe(1);
});

test("delete that merges buckets and fails at any step changes nothing", async () => {
  using store = await newStore();
  const map = store.map("m");
  for (let i = 0; i < 800; i++) map.set(`${i}`, one);
  for (let i = 0; i < 640; i++) map.delete(`${i}`);
  const pages = usedPages(store);
  for (let i = 640; usedPages(store) >= pages; i++) {
    const entries = sortedEntries(map);
    failAtEachStep(
      store,
      () => map.delete(`${i}`),
      () => expect(sortedEntries(map)).toEqual(entries),
    );
  }
  expect(map.size).toBeGreaterThan(50);
});

test("swapRemove gives back the chunks of rows that are gone", async () => {
  using store = await newStore();
  const table = store.table("t", { vector: ["f32", 256], text: "bytes" });
  for (let i = 0; i < 5000; i++) table.push({ vector: new Float32Array(256).fill(i), text: one });
  const most = usedPages(store);
  while (table.length > 10) table.swapRemove(0);
  expect(usedPages(store)).toBeLessThan(most / 3);
  expect(table.length).toBe(10);
});

test("drop frees every page of a structure", async () => {
  using store = await newStore();
  store.map("other").set("a", new Uint8Array(1000));
  store.table("t", { wide: ["f64", 500], text: "bytes" });
  store.drop("t");
  const before = usedPages(store);
  for (let round = 0; round < 2; round++) {
    const table = store.table("t", { wide: ["f64", 500], text: "bytes" });
    for (let i = 0; i < 300; i++) table.push({ text: new Uint8Array(5000) });
    while (table.length > 0) table.swapRemove(0);
    const map = store.map("m", { key: "u32" });
    for (let i = 0; i < 2000; i++) map.set(i, new Uint8Array(i));
    store.drop("t");
    store.drop("m");
    // A size class keeps its last span.
    expect(usedPages(store)).toBeLessThan(before + 600);
  }
  expect(store.map("other").get("a")!.length).toBe(1000);
});

test("drop needs no memory", async () => {
  await using store = await newStore({ limitBytes: 2 ** 24 });
  const map = store.map("m");
  const value = new Uint8Array(4000);
  expect(() => {
    for (let i = 0; ; i++) map.set(`${i}`, value);
  }).toThrow(expect.objectContaining({ code: "ENOMEM" }));
  expect(store.drop("m")).toBe(true);
  expect(() => map.size).toThrow(expect.objectContaining({ code: "ERR_DROPPED" }));
  const again = store.map("m");
  for (let i = 0; i < 1000; i++) again.set(`${i}`, value);
  expect(again.size).toBe(1000);
});

test("compact gives back the pages of entries that are few and far between", async () => {
  using store = await newStore();
  const map = store.map("m", { key: "u32" });
  const value = (i: number) => new Uint8Array(i % 200).fill(i);
  for (let i = 0; i < 30_000; i++) map.set(i, value(i), i % 3 === 0 ? { ttlMs: 1e9 } : null);
  for (let i = 0; i < 30_000; i++) if (i % 97 !== 0) map.delete(i);
  const before = usedPages(store);
  const entries = sortedEntries(map);
  const { bytes } = map;
  failAtEachStep(
    store,
    () => map.compact(),
    () => expect(sortedEntries(map)).toEqual(entries),
  );
  expect(usedPages(store)).toBeLessThan(before / 4);
  expect(sortedEntries(map)).toEqual(entries);
  expect([map.size, map.bytes]).toEqual([310, bytes]);
});
