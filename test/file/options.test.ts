/**
 * Options: null means absent, each is read once, during the call, and a bad one changes nothing.
 */
import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createQueue } from "../../src/aio/index.ts";
import { Store } from "../../src/data/index.ts";
import { exportTo, importFrom } from "../../src/gvisor/index.ts";
import { loadAll, MemoryFile, openSource, PAGE_SIZE, saveAll, serveMap } from "../../src/index.ts";
import { namedDescriptors } from "../safety/support/descriptors.ts";

const directory = mkdtempSync(join(tmpdir(), "pgalloc-options-"));
afterAll(() => rmSync(directory, { recursive: true }));

/** An object whose properties are all null. */
const nulls = new Proxy(
  {},
  { get: () => null, has: () => true, ownKeys: () => [], getPrototypeOf: () => Object.prototype },
);
const NULLS = {
  name: null,
  limitBytes: null,
  path: null,
  expectHugepages: null,
  adviseHugepage: null,
  adviseNoHugepage: null,
  delayedEviction: null,
  memoryPressure: null,
};
const LOAD_NULLS = { ...NULLS, background: null, signal: null, onProgress: null, queue: null };

test("null for an option means absent, and so does null for the options", async () => {
  using file = MemoryFile.create(NULLS);
  using _other = MemoryFile.create(null);
  expect(file.name).toBe("pgalloc");
  const range = file.allocate(PAGE_SIZE, {
    kind: null,
    group: null,
    mode: null,
    huge: null,
    direction: null,
    fill: null,
  });
  file.allocate(PAGE_SIZE, null);
  file.allocate(PAGE_SIZE, nulls);
  file.view(range)[0] = 7;
  await file.released({ signal: null });
  await file.released(null);
  await file.waitForEvictions({ signal: null });
  await file.awaitLoad(null, null);
  await file.retryLoad(range, { signal: null });
  file.awaitLoadSync(null);
  file.updateUsage(null);
  const native = join(directory, "native");
  await file.saveTo(native, { userData: null, signal: null, onProgress: null });
  await file.saveTo(native, null);
  using loaded = await MemoryFile.loadFrom(native, LOAD_NULLS);
  expect(loaded.userData).toBe(null);
  expect(loaded.view(range)[0]).toBe(7);
  const gvisor = join(directory, "gvisor");
  await exportTo(file, gvisor, { signal: null, onProgress: null, foreignKind: null });
  using imported = await importFrom(gvisor, LOAD_NULLS);
  expect(imported.view(range)[0]).toBe(7);
  const several = join(directory, "several");
  await saveAll(several, { a: file }, { userData: null, fileUserData: null, signal: null });
  using files = await loadAll(several, {
    background: null,
    signal: null,
    onProgress: null,
    queue: null,
    fileOptions: null,
    limitBytes: null,
  });
  expect(files.get("a")!.view(range)[0]).toBe(7);
  (await loadAll(several, { fileOptions: () => NULLS }))[Symbol.dispose]();
});

test("null for an option of a store, of a source or of the map means absent, too", async () => {
  const place = join(directory, "store");
  const options = { ...LOAD_NULLS, create: true, readOnly: null, checkpointEveryMs: null };
  const store = await Store.open(place, { ...options, onCheckpointError: null, now: null });
  const map = store.map("users", { key: null, maxEntries: null, maxBytes: null });
  map.set("ann", new Uint8Array(3), { ttlMs: null });
  map.set("bob", new Uint8Array(3), null);
  expect(store.map("users", null).get("ann")).toEqual(new Uint8Array(3));
  await store.checkpoint();
  const source = await openSource(place, { s3: null });
  expect(source).toBeDefined();
  const server = await serveMap(store.memory, { port: null, hostname: null, title: null });
  await server.stop();
  await store.close();
  await using queue = createQueue(null, { capacity: null, threads: null });
  expect(queue.capacity).toBe(32);
});

test("options that are not an object are refused, and named with their type", async () => {
  using file = MemoryFile.create();
  expect(() => MemoryFile.create("name" as never)).toThrow('got "name" (a string)');
  await expect(file.saveTo(directory, 5 as never)).rejects.toThrow(
    "options to be an object, got 5",
  );
  await expect(file.released(true as never)).rejects.toThrow("options to be an object, got true");
  await expect(file.awaitLoad(undefined, { signal: {} as never })).rejects.toThrow(
    "signal to be an AbortSignal, got {}",
  );
});

test("create accepts a name of 249 bytes without NUL, and loadAll cuts longer ids", async () => {
  expect(() => MemoryFile.create({ name: "a\0b" })).toThrow("NUL");
  expect(() => MemoryFile.create({ name: "é".repeat(125) })).toThrow("at most 249 bytes");
  using longest = MemoryFile.create({ name: "é".repeat(124) });
  expect(longest.name.length).toBe(124);
  const place = join(directory, "long id");
  const id = "é".repeat(127);
  await saveAll(place, { [id]: longest });
  using files = await loadAll(place);
  expect(files.get(id)!.name).toBe("é".repeat(124));
});

test("allocate and attach change nothing if an argument is bad", () => {
  using file = MemoryFile.create();
  file.allocate(PAGE_SIZE);
  const before = file.dump();
  for (const fill of [5, "fill", {}, []])
    expect(() => file.allocate(PAGE_SIZE, { fill: fill as never })).toThrow(
      /fill to be a function/,
    );
  expect(file.dump()).toBe(before);
  const handle = file.share();
  const count = namedDescriptors().length;
  for (const bad of [
    undefined,
    null,
    "handle",
    {},
    { ...handle, name: 5 },
    { ...handle, userData: "text" },
    { ...handle, load: 5 },
    { ...handle, load: {} },
    { ...handle, control: new SharedArrayBuffer(8) },
  ])
    expect(() => MemoryFile.attach(bad as never)).toThrow(TypeError);
  expect(namedDescriptors().length).toBeLessThanOrEqual(count);
  expect(readdirSync(directory).filter((name) => name.startsWith("."))).toEqual([]);
});
