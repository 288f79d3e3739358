/**
 * Every public function with values of every other type: a typed error whose message is ours, or a
 * result. The engine's own messages name no argument ("undefined is not an object").
 */
import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createQueue } from "../../src/aio/index.ts";
import { Store } from "../../src/data/index.ts";
import { exportAll, exportTo, importAll, importFrom } from "../../src/gvisor/index.ts";
import { loadAll, MemoryFile, openSource, prometheus, saveAll, serveMap } from "../../src/index.ts";
import { openReader } from "../../src/source/index.ts";

const root = mkdtempSync(join(tmpdir(), "pgalloc-bad-"));
// Relative paths, such as "x", are made here.
const home = process.cwd();
process.chdir(root);
afterAll(() => {
  process.chdir(home);
  rmSync(root, { recursive: true });
});

type Call = (value: never) => unknown;
const values: readonly unknown[] = [
  ...[undefined, null, 5, -1, Number.NaN, 1.5, "x", "", true, 10n, Symbol("s"), () => 1],
  ...[[], {}, new Map(), new Uint8Array(3), new Date(0)],
];

const file = MemoryFile.create();
const range = file.allocate(8192);
const where = join(root, "checkpoint");
await file.saveTo(where);
await saveAll(join(root, "several"), { file });
await exportTo(file, join(root, "export"));
const store = await Store.open(join(root, "store"), { create: true });
const map = store.map("m");
const table = store.table("t", { a: "f64" });
const keys = { accessKeyId: "a", secretAccessKey: "b", endpoint: "http://127.0.0.1:9" };
const s3 = (more: object) =>
  MemoryFile.loadFrom("s3://bucket/a", {
    s3: { ...keys, ...more },
    signal: AbortSignal.timeout(5),
  });

const calls: Record<string, Call> = {
  "MemoryFile.create": (v) => MemoryFile.create(v).destroy(),
  "MemoryFile.attach": (v) => MemoryFile.attach(v),
  "MemoryFile.attach, options": (v) => void MemoryFile.attach(file.share(), v),
  "MemoryFile.open": (v) => MemoryFile.open(v),
  "MemoryFile.loadFrom": (v) => MemoryFile.loadFrom(v),
  loadAll: (v) => loadAll(v),
  "loadAll, options": (v) => loadAll(join(root, "several"), v),
  saveTo: (v) => file.saveTo(v),
  "saveTo, options": (v) => file.saveTo(where, v),
  compact: (v) => file.compact(v),
  checkpointEvery: (v) => file.checkpointEvery(v, 1000).stop(),
  "checkpointEvery, everyMs": (v) => file.checkpointEvery(where, v).stop(),
  saveAll: (v) => saveAll(v, { file }),
  "saveAll, files": (v) => saveAll(where, v),
  "saveAll, a file": (v) => saveAll(where, { a: v }),
  "saveAll, an id": (v) => saveAll(where, new Map([[v, file]])),
  "saveAll, fileUserData": (v) => saveAll(where, { file }, { fileUserData: v }),
  "saveAll, the id of user data": (v) =>
    saveAll(where, { file }, { fileUserData: new Map([[v, new Uint8Array(1)]]) }),
  allocate: (v) => file.allocate(v),
  "allocate, options": (v) => file.allocate(4096, v),
  "allocate, fill's result": (v) => file.allocate(4096, { fill: () => v }),
  incRef: (v) => file.incRef(v),
  decRef: (v) => file.decRef(v),
  hasUniqueRef: (v) => file.hasUniqueRef(v),
  firstSharedRange: (v) => file.firstSharedRange(v),
  decommit: (v) => file.decommit(v),
  view: (v) => file.view(v),
  "view, type": (v) => file.view(range, v),
  "view, start": (v) => file.view({ start: v, end: 4096 }),
  views: (v) => file.views(v),
  markWritten: (v) => file.markWritten(v),
  isLoaded: (v) => file.isLoaded(v),
  awaitLoad: (v) => file.awaitLoad(v),
  "awaitLoad, options": (v) => file.awaitLoad(range, v),
  awaitLoadSync: (v) => file.awaitLoadSync(v),
  retryLoad: (v) => file.retryLoad(v),
  released: (v) => file.released(v),
  parked: (v) => file.parked(v),
  markEvictable: (v) => file.markEvictable(v, { start: 0, end: 1 }),
  "markEvictable, range": (v) => file.markEvictable({ evict() {} }, v),
  markUnevictable: (v) => file.markUnevictable(v, { start: 0, end: 1 }),
  markAllUnevictable: (v) => file.markAllUnevictable(v),
  waitForEvictions: (v) => file.waitForEvictions(v),
  updateUsage: (v) => file.updateUsage(v),
  "updateUsage, a group": (v) => file.updateUsage([v]),
  prometheus: (v) => prometheus(v),
  serveMap: async (v) => await (await serveMap(v)).stop(),
  openSource: (v) => openSource(v),
  openReader: (v) => openReader(v, "demand"),
  "openReader, module": (v) => openReader({ kind: "module", module: v, options: 1 }, "demand"),
  createQueue: (v) => createQueue(v).destroy(),
  "createQueue, options": (v) => createQueue("inline", v).destroy(),
  exportTo: (v) => exportTo(v, join(root, "other")),
  "exportTo, options": (v) => exportTo(file, join(root, "other"), v),
  exportAll: (v) => exportAll(join(root, "other"), v),
  importFrom: (v) => importFrom(v),
  importAll: (v) => importAll(v),
  "Store.open": (v) => Store.open(v),
  "Store.attach": (v) => Store.attach(v),
  "Store.attach, memory": (v) => Store.attach({ ...store.share(), memory: v }),
  "Store.map": (v) => store.map(v),
  "Store.map, key": (v) => store.map("m", { key: v }),
  "Store.table": (v) => store.table(v),
  "Store.table, schema": (v) => store.table("t", v),
  "Store.table, a type": (v) => store.table("u", { a: v }),
  "Store.drop": (v) => store.drop(v),
  "Store.batch": (v) => store.batch(v),
  "Store.whenLoaded": (v) => store.whenLoaded(v),
  "map.set, key": (v) => map.set(v, new Uint8Array(1)),
  "map.set, value": (v) => map.set("a", v),
  "map.set, options": (v) => map.set("a", new Uint8Array(1), v),
  "map.get": (v) => map.get(v),
  "map.delete": (v) => map.delete(v),
  "map.setMany": (v) => map.setMany(v),
  "map.setMany, an entry": (v) => map.setMany([v]),
  "map.update": (v) => map.update("a", v),
  "table.push": (v) => table.push(v),
  "table.push, a value": (v) => table.push({ a: v }),
  "table.get": (v) => table.get(v),
  "table.set": (v) => table.set(v, { a: 1 }),
  "table.column": (v) => table.column(v),
  "table.swapRemove": (v) => table.swapRemove(v),
  "table.addColumn": (v) => table.addColumn(v, "f64"),
  "table.addColumn, type": (v) => table.addColumn("z", v),
  "heap.put": (v) => store.heap.put(v),
  "heap.get": (v) => store.heap.get(v),
  "heap.free": (v) => store.heap.free(v),
};

/** Options that are checked by value. Those of `save` are also of `saveAll`, and so on. */
const options: Record<string, [(options: never) => unknown, string[]]> = {
  create: [
    (o) => MemoryFile.create(o).destroy(),
    ["name", "limitBytes", "path", "mode", "checks", "memoryPressure", "delayedEviction"].concat([
      "expectHugepages",
      "adviseHugepage",
      "adviseNoHugepage",
    ]),
  ],
  loadFrom: [
    (o) => MemoryFile.loadFrom(where, o),
    ["background", "signal", "onProgress", "queue", "workingSet", "mapped", "verify", "cache"],
  ],
  saveTo: [
    (o) => file.saveTo(where, o),
    ["userData", "consistent", "incremental", "compression", "targetPauseMs", "signal"].concat([
      "pauseMemoryBytes",
      "stopTimeoutMs",
      "mode",
      "onProgress",
    ]),
  ],
  checkpointEvery: [(o) => file.checkpointEvery(where, 1000, o).stop(), ["onSave", "onError"]],
  loadAll: [(o) => loadAll(join(root, "several"), o), ["fileOptions"]],
  allocate: [
    (o) => file.allocate(2 ** 21, o),
    ["kind", "group", "mode", "huge", "direction", "fill"],
  ],
  s3: [s3, ["endpoint", "region", "pathStyle", "accessKeyId", "secretAccessKey", "credentials"]],
  serveMap: [async (o) => await (await serveMap(file, o)).stop(), ["port", "hostname", "title"]],
  "Store.open": [
    async (o) =>
      await (await Store.open(join(root, "new"), { create: true, ...(o as object) })).close(),
    ["create", "readOnly", "checkpointEveryMs", "onCheckpointError", "now"],
  ],
  "Store.map": [(o) => store.map("m", o), ["key", "maxEntries", "maxBytes"]],
  "map.set": [(o) => map.set("a", new Uint8Array(1), o), ["ttlMs"]],
};
for (const [name, [call, names]] of Object.entries(options))
  for (const option of names) calls[`${name}, ${option}`] = (v) => call({ [option]: v } as never);

/** Parts of the engine's messages for a value of a type that it did not expect. */
const ENGINE =
  /is not a function|is not an object|is not iterable|Cannot read|Cannot convert|Receiver|Invalid mix/;

test.each(Object.entries(calls))("%s names a mistake itself", async (_, call) => {
  for (const value of values) {
    try {
      const result = await call(value as never);
      if (result instanceof MemoryFile) result.destroy();
    } catch (error) {
      const { code, message } = error as { code?: unknown; message: string };
      const isTyped = error instanceof TypeError || error instanceof RangeError;
      const isTimeout = (error as Error).name === "TimeoutError";
      expect([isTyped || isTimeout || typeof code === "string", message]).toEqual([true, message]);
      expect(message).not.toMatch(ENGINE);
    }
  }
});

const switches: Record<string, (value: never) => unknown> = {
  background: (v) => MemoryFile.loadFrom(where, { background: v }),
  checks: (v) => MemoryFile.create({ checks: v }),
  expectHugepages: (v) => MemoryFile.create({ expectHugepages: v }),
  huge: (v) => file.allocate(2 ** 21, { huge: v }),
  "bytes as options": () => file.saveTo(where, new Uint8Array(8) as never),
};

test.each(Object.entries(switches))("%s is not taken for something else", async (_, call) => {
  const work = async () => await call("true" as never);
  await expect(work()).rejects.toThrow(TypeError);
});
