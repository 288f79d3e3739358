/** Operations that fail at any of their steps leave the store as it was. */
import { afterAll, expect, test } from "bun:test";
import { join } from "node:path";
import { Store } from "../../src/data/index.ts";
import { Root, ROOT_WORDS, JOURNAL_AT, WINDOWS_AT } from "../../src/data/layout.ts";
import { arenaOf, failAtEachStep, sortedEntries, temporaryDirectory } from "./support/support.ts";

const directory = temporaryDirectory();
afterAll(directory.remove);

/** All that the store's pages hold, but for the journal and blocks that nothing refers to. */
function rootImage(store: Store): string {
  const { root } = arenaOf(store);
  const image = root.slice();
  image.fill(0, JOURNAL_AT, WINDOWS_AT);
  // These only ever grow.
  image[Root.WindowsVersion] = image[Root.NamesVersion] = 0;
  expect(image[Root.JournalCount]).toBe(0);
  expect(image.length).toBe(ROOT_WORDS);
  return Bun.hash(image).toString();
}

async function filled(name: string, count: number, options = {}): Promise<Store> {
  const store = await Store.open(join(directory.path, name), { create: true });
  const map = store.map("m", options);
  for (let i = 0; i < count; i++) map.set(`key-${i}`, new Uint8Array(i % 150).fill(i));
  return store;
}

function check(store: Store, operate: () => void): void {
  const map = store.map("m");
  const entries = sortedEntries(map);
  const image = rootImage(store);
  const size = map.size;
  const failures = failAtEachStep(store, operate, () => {
    expect(map.size).toBe(size);
    expect(rootImage(store)).toBe(image);
    expect(sortedEntries(map)).toEqual(entries);
  });
  expect(failures).toBeGreaterThan(3);
}

test("set of a new key that fails at any step changes nothing", async () => {
  using store = await filled("new", 300);
  check(store, () => store.map("m").set("another", new Uint8Array(5000)));
  expect(store.map("m").get("another")!.length).toBe(5000);
});

test("set of an old key that fails at any step changes nothing", async () => {
  using store = await filled("old", 300);
  check(store, () => store.map("m").set("key-5", new Uint8Array(90_000)));
  expect(store.map("m").get("key-5")!.length).toBe(90_000);
});

test("delete that fails at any step changes nothing", async () => {
  using store = await filled("delete", 395);
  check(store, () => store.map("m").delete("key-77"));
  expect(store.map("m").has("key-77")).toBe(false);
});

test("set that evicts entries and fails at any step changes nothing", async () => {
  using store = await filled("evict", 200, { maxEntries: 200 });
  check(store, () => store.map("m").set("another", new Uint8Array(10)));
  expect(store.map("m").size).toBe(200);
  expect(store.map("m").has("another")).toBe(true);
});

test("set that splits a bucket and fails at any step keeps all entries", async () => {
  using store = await filled("split", 396);
  const map = store.map("m");
  const entries = sortedEntries(map);
  failAtEachStep(
    store,
    () => map.set("another", new Uint8Array(10)),
    () => expect(sortedEntries(map)).toEqual(entries),
  );
  expect(map.size).toBe(397);
});

test("update that fails at any step changes nothing", async () => {
  using store = await filled("update", 300);
  check(store, () => store.map("m").update("key-9", (old) => new Uint8Array(2000).fill(old![0]!)));
  expect(store.map("m").get("key-9")!.length).toBe(2000);
});

test("setMany that fails at any step has set whole entries from the first on", async () => {
  using store = await filled("many", 100);
  const map = store.map("m");
  const added = Array.from(
    { length: 5 },
    (_, i) => [`added-${i}`, new Uint8Array(900 * i)] as const,
  );
  failAtEachStep(
    store,
    () => map.setMany(added),
    () => {
      const lengths = added.map(([key]) => map.get(key)?.length);
      const count = lengths.filter((length) => length !== undefined).length;
      expect(lengths).toEqual(added.map(([, value], i) => (i < count ? value.length : undefined)));
      expect(map.size).toBe(100 + count);
    },
  );
  expect(map.size).toBe(105);
});

test("heap.put and heap.free that fail at any step change nothing", async () => {
  using store = await filled("heap", 10);
  const handles = Array.from({ length: 50 }, (_, i) => store.heap.put(new Uint8Array(i * 100)));
  const image = rootImage(store);
  const unchanged = () => expect(rootImage(store)).toBe(image);
  failAtEachStep(store, () => store.heap.put(new Uint8Array(20_000_000)), unchanged);
  const after = rootImage(store);
  failAtEachStep(
    store,
    () => store.heap.free(handles[7]!),
    () => expect(rootImage(store)).toBe(after),
  );
  for (const [i, handle] of handles.entries())
    if (i !== 7) expect(store.heap.get(handle).length).toBe(i * 100);
});
