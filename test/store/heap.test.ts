/** The heap against a Map of handles; its waste on real text; its memory after many frees. */
import { afterAll, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { Store } from "../../src/data/index.ts";
import { CLASS_BYTES, classOf, MAX_SMALL_BYTES } from "../../src/data/size-classes.ts";
import { randomOf } from "./support/stamps.ts";
import { hex, temporaryDirectory } from "./support/support.ts";

const directory = temporaryDirectory();
afterAll(directory.remove);
let count = 0;
const open = (options = {}) =>
  Store.open(join(directory.path, `${count++}`), { create: true, ...options });

test("classOf returns the smallest class that is large enough", () => {
  for (let bytes = 1; bytes <= MAX_SMALL_BYTES; bytes++) {
    const sizeClass = classOf(bytes);
    if (CLASS_BYTES[sizeClass]! < bytes) throw new Error(`${bytes} are too many`);
    if (sizeClass > 0 && CLASS_BYTES[sizeClass - 1]! >= bytes)
      throw new Error(`${bytes} fit below`);
  }
});

test("Heap answers as a Map of handles does", async () => {
  const size = fc.oneof(
    fc.integer({ min: 0, max: 300 }),
    fc.integer({ min: 0, max: 50_000 }),
    fc.constantFrom(0, 1, 32_760, 32_761, 4 * 2 ** 20, 9 * 2 ** 20),
  );
  const steps = fc.array(fc.tuple(fc.boolean(), size, fc.nat()), { maxLength: 120 });
  await fc.assert(
    fc.asyncProperty(steps, async (operations) => {
      using store = await open();
      const { heap } = store;
      const model = new Map<number, Uint8Array>();
      const freed = new Set<number>();
      for (const [puts, length, at] of operations) {
        const handles = [...model.keys()];
        if (puts || handles.length === 0) {
          const value = new Uint8Array(length).fill(at);
          const handle = heap.put(value);
          if (model.has(handle)) throw new Error(`${handle} was given twice`);
          model.set(handle, value);
          freed.delete(handle);
        } else {
          const handle = handles[at % handles.length]!;
          heap.free(handle);
          model.delete(handle);
          freed.add(handle);
        }
      }
      for (const [handle, value] of model) expect(hex(heap.get(handle))).toBe(hex(value));
      for (const handle of freed) expect(heap.has(handle)).toBe(false);
      expect(heap.blocks).toBe(model.size);
      expect(heap.bytes).toBe([...model.values()].reduce((sum, { length }) => sum + length, 0));
    }),
    { numRuns: 30 },
  );
}, 60_000);

test("get of a stale, foreign or absurd handle throws StaleHandleError", async () => {
  using store = await open();
  const { heap } = store;
  const handle = heap.put(new Uint8Array(100));
  const other = heap.put(new Uint8Array(100));
  heap.free(handle);
  const again = heap.put(new Uint8Array(100));
  expect(again).not.toBe(handle);
  const stale = expect.objectContaining({ code: "ERR_STALE_HANDLE" });
  const absurd = [
    0,
    -1,
    1.5,
    Number.NaN,
    2 ** 60,
    other + 4096,
    other + 1,
    Number.MAX_SAFE_INTEGER,
  ];
  for (const bad of [handle, ...absurd, "1" as never, undefined as never]) {
    expect(() => heap.get(bad)).toThrow(stale);
    expect(() => heap.free(bad)).toThrow(stale);
    expect(heap.has(bad)).toBe(false);
  }
  store.map("m").set("a", new Uint8Array(100));
  expect(heap.get(other).length).toBe(100);
});

test("put wastes at most 15 % for blocks of a text corpus", async () => {
  const root = join(import.meta.dir, "../..");
  const paragraphs = ["docs", "src/data", "src/file"].flatMap((folder) =>
    readdirSync(join(root, folder))
      .filter((name) => /\.(md|ts)$/.test(name))
      .flatMap((name) => readFileSync(join(root, folder, name), "utf8").split("\n\n")),
  );
  const sizes = paragraphs.map((paragraph) => Buffer.byteLength(paragraph)).filter((n) => n > 0);
  expect(sizes.length).toBeGreaterThan(500);
  using store = await open();
  const { blocks } = (store as unknown as { parts: { blocks: { sizeFor(n: number): number } } })
    .parts;
  const used = sizes.reduce((sum, n) => sum + n, 0);
  const taken = sizes.reduce((sum, n) => sum + blocks.sizeFor(n + 8), 0);
  console.log(`    ${sizes.length} paragraphs: waste ${(100 * (taken / used - 1)).toFixed(1)} %`);
  expect(taken / used - 1).toBeLessThan(0.15);
});

test("put and free keep memory bounded over many random steps", async () => {
  using store = await open();
  const { heap } = store;
  const random = randomOf(7);
  const handles: number[] = [];
  let bytes = 0;
  const put = () => {
    const length = 1 + random(random(20) === 0 ? 20_000 : 600);
    handles.push(heap.put(new Uint8Array(length)));
    bytes += length;
  };
  while (bytes < 8e6) put();
  const before = store.memory.totalUsageBytes;
  for (let i = 0; i < 100_000; i++) {
    const at = random(handles.length);
    bytes -= heap.get(handles[at]!).length;
    heap.free(handles[at]!);
    handles[at] = handles.at(-1)!;
    handles.pop();
    while (bytes < 8e6) put();
  }
  const after = store.memory.totalUsageBytes;
  console.log(
    `    ${(bytes / 1e6).toFixed(1)} MB in ${(before / 1e6).toFixed(1)} MB at first, ` +
      `${(after / 1e6).toFixed(1)} MB after 100,000 frees and puts`,
  );
  expect(after).toBeLessThan(1.5 * before);
  for (const handle of handles) heap.free(handle);
  await store.memory.released();
  expect(store.memory.totalUsageBytes).toBeLessThan(before / 2 + 4 * 2 ** 20);
}, 60_000);
