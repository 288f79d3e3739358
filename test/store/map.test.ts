/** StoreMap: what the model does not ask. */
import { afterAll, expect, test } from "bun:test";
import { join } from "node:path";
import { type KeyType, Store } from "../../src/data/index.ts";
import { hex, sortedEntries, temporaryDirectory } from "./support/support.ts";

const directory = temporaryDirectory();
afterAll(directory.remove);
const store = await Store.open(join(directory.path, "store"), { create: true });
afterAll(() => store[Symbol.dispose]());
let count = 0;
const newMap = <K extends KeyType = "string">(options = {}) =>
  store.map<K>(`map-${count++}`, options as never);
const one = new Uint8Array([1]);

test("set throws for bad keys and values", () => {
  const map = newMap();
  expect(() => map.set("\ud800", one)).toThrow(TypeError);
  expect(() => map.get("a\udc00b")).toThrow(TypeError);
  expect(() => map.set(5 as never, one)).toThrow(TypeError);
  expect(() => map.set("a", "b" as never)).toThrow(TypeError);
  expect(() => map.set("x".repeat(65_536), one)).toThrow(RangeError);
  expect(() => map.set("a", one, { ttlMs: 0 })).toThrow(RangeError);
  const numbers = newMap<"u32">({ key: "u32" });
  expect(() => numbers.set(-1, one)).toThrow(RangeError);
  expect(() => numbers.set(1.5, one)).toThrow();
  expect(() => newMap<"u64">({ key: "u64" }).set(-1n, one)).toThrow(RangeError);
  expect(() => newMap({ key: "date" })).toThrow(TypeError);
  expect(map.size).toBe(0);
});

test("keys of all types are read as they were set", () => {
  const keys: [KeyType, unknown[]][] = [
    ["string", ["", "a", "äöü", "日本語", "\ufeffbom", "😀", "\0", "abcd", "abcd\0"]],
    ["bytes", [new Uint8Array(0), new Uint8Array([0]), new Uint8Array([0, 0]), new Uint8Array(5)]],
    ["u32", [0, 1, 0xffff_ffff, 0x8000_0000]],
    ["i32", [0, -1, 0x7fff_ffff, -0x8000_0000]],
    ["f64", [0, 1.5, -1.5, Number.NaN, Number.POSITIVE_INFINITY, 5e-324]],
    ["u64", [0n, 1n, 2n ** 64n - 1n]],
    ["i64", [0n, -1n, -(2n ** 63n), 2n ** 63n - 1n]],
  ];
  for (const [key, values] of keys) {
    const map = newMap<KeyType>({ key });
    for (const [i, value] of values.entries()) map.set(value as never, new Uint8Array([i]));
    expect(map.size).toBe(values.length);
    for (const [i, value] of values.entries())
      expect(map.get(value as never)).toEqual(new Uint8Array([i]));
    const text = (value: unknown) =>
      value instanceof Uint8Array ? hex(value) : `${String(value)}`;
    expect([...map.keys()].map(text).sort()).toEqual(values.map(text).sort());
  }
});

test("f64 keys are the same as Map's", () => {
  const map = newMap<"f64">({ key: "f64" });
  map.set(0, one).set(Number.NaN, one);
  expect(map.has(-0)).toBe(true);
  expect(map.has(0 / 0)).toBe(true);
  expect(map.size).toBe(2);
});

test("a subclass that lies about its length changes nothing but its own entry", () => {
  class Liar extends Uint8Array {
    override get length(): number {
      return 1;
    }
  }
  const map = newMap();
  for (let i = 0; i < 20; i++) map.set(`${i}`, new Uint8Array(10).fill(i));
  map.set("5", new Liar(1000).fill(99));
  expect(map.get("5")!.length).toBe(1000);
  for (let i = 6; i < 20; i++) expect(map.get(`${i}`)).toEqual(new Uint8Array(10).fill(i));
});

test("set accepts the map's own view as a value", () => {
  const map = newMap();
  map.set(
    "a",
    new Uint8Array(500).map((_, i) => i),
  );
  map.set("b", map.getView("a")!);
  map.set("a", map.getView("b")!.subarray(0, 400));
  map.set("a", map.getView("a")!.subarray(1));
  expect(map.get("a")).toEqual(new Uint8Array(399).map((_, i) => i + 1));
});

test("iteration while the map changes yields each lasting entry exactly once", () => {
  const map = newMap();
  for (let i = 0; i < 3000; i++) map.set(`old-${i}`, one);
  const seen = new Map<string, number>();
  let step = 0;
  for (const [key] of map) {
    seen.set(key, (seen.get(key) ?? 0) + 1);
    for (let i = 0; i < 3; i++) map.set(`new-${step}-${i}`, one);
    // The last third of the old entries goes, one by one.
    if (step < 1000) map.delete(`old-${2000 + step}`);
    step++;
    if (step > 20_000) throw new Error("the iteration does not end");
  }
  for (let i = 0; i < 2000; i++) expect(seen.get(`old-${i}`)).toBe(1);
  for (const times of seen.values()) expect(times).toBe(1);
});

test("maxEntries evicts entries that were not read recently", () => {
  const map = newMap({ maxEntries: 1000 });
  for (let i = 0; i < 1000; i++) map.set(`${i}`, one);
  for (let round = 0; round < 20; round++) {
    for (let i = 0; i < 100; i++) map.get(`${i}`);
    for (let i = 0; i < 100; i++) map.set(`other-${round}-${i}`, one);
  }
  expect(map.size).toBe(1000);
  let kept = 0;
  for (let i = 0; i < 100; i++) if (map.has(`${i}`)) kept++;
  // As good as chance would be one in seven.
  expect(kept).toBeGreaterThan(80);
});

test("maxBytes bounds the bytes of all entries", () => {
  const map = newMap({ maxBytes: 1_000_000 });
  for (let i = 0; i < 3000; i++) {
    map.set(`${i}`, new Uint8Array((i * 37) % 5000));
    expect(map.bytes).toBeLessThanOrEqual(1_000_000);
  }
  expect(map.bytes).toBeGreaterThan(900_000);
  map.set("large", new Uint8Array(900_000));
  expect(map.has("large")).toBe(true);
  expect(map.bytes).toBeLessThanOrEqual(1_000_000);
  const size = map.size;
  expect(() => map.set("too large", new Uint8Array(1_100_000))).toThrow(RangeError);
  expect(map.size).toBe(size);
});

test("update reads and writes in one step", () => {
  const map = newMap();
  const add = (value: Uint8Array | undefined) => new Uint8Array([(value?.[0] ?? 0) + 1]);
  expect(map.update("n", add)).toEqual(new Uint8Array([1]));
  expect(map.update("n", add)).toEqual(new Uint8Array([2]));
  map.update("n", () => undefined);
  expect(map.has("n")).toBe(false);
});

test("an update that throws changes nothing", () => {
  const map = newMap();
  map.setMany([
    ["a", one],
    ["b", one],
  ]);
  const before = sortedEntries(map);
  expect(() =>
    map.update("a", () => {
      throw new Error("no");
    }),
  ).toThrow("no");
  expect(sortedEntries(map)).toEqual(before);
});

test("a hundred thousand entries are all found, and none after clear", () => {
  const map = newMap();
  for (let i = 0; i < 100_000; i++) map.set(`key-${i}`, new Uint8Array([i, i >> 8, i >> 16]));
  for (let i = 0; i < 100_000; i++) expect(map.getView(`key-${i}`)![1]).toBe((i >> 8) & 255);
  expect([...map.keys()].length).toBe(100_000);
  map.clear();
  expect(map.size).toBe(0);
  expect(map.bytes).toBe(0);
  expect([...map]).toEqual([]);
});
