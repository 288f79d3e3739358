/** Misspelled options are refused; options of others are ignored. */
import { afterAll, expect, test } from "bun:test";
import { join } from "node:path";
import { createQueue } from "../../src/aio/index.ts";
import type {
  MapOptions,
  SetOptions,
  StoreAttachOptions,
  StoreOptions,
} from "../../src/data/index.ts";
import { Store } from "../../src/data/index.ts";
import { type ExportOptions, exportTo, importFrom } from "../../src/gvisor/index.ts";
import {
  type AllocateOptions,
  type AttachOptions,
  type CacheOptions,
  type CheckpointEveryOptions,
  type LoadAllOptions,
  loadAll,
  MemoryFile,
  type MemoryFileOptions,
  type OpenOptions,
  openSource,
  type PressureThreshold,
  type S3Options,
  type SaveAllOptions,
  saveAll,
  serveMap,
  type ServeMapOptions,
} from "../../src/index.ts";
import type { OPTION_NAMES } from "../../src/core/option-names.ts";
import { temporaryDirectory } from "../store/support/support.ts";

type Known = (typeof OPTION_NAMES)[number];
type Options =
  | keyof (AllocateOptions & AttachOptions & CacheOptions & CheckpointEveryOptions)
  | keyof (ExportOptions & LoadAllOptions & MemoryFileOptions & OpenOptions & PressureThreshold)
  | keyof (S3Options & SaveAllOptions & ServeMapOptions)
  | keyof (MapOptions & SetOptions & StoreOptions & StoreAttachOptions);

const directory = temporaryDirectory();
afterAll(directory.remove);
const where = join(directory.path, "checkpoint");
const file = MemoryFile.create();
await file.saveTo(where);
const store = await Store.open(join(directory.path, "store"), { create: true });
const range = file.allocate(4096);

const calls: Record<string, (options: never) => unknown> = {
  create: (options) => MemoryFile.create(options),
  open: (options) => MemoryFile.open(where, options),
  loadFrom: (options) => MemoryFile.loadFrom(where, options),
  loadAll: (options) => loadAll(where, options),
  attach: (options) => MemoryFile.attach(file.share(), options),
  allocate: (options) => file.allocate(4096, options),
  saveTo: (options) => file.saveTo(where, options),
  saveAll: (options) => saveAll(where, { file }, options),
  compact: (options) => file.compact(where, options),
  checkpointEvery: (options) => file.checkpointEvery(where, 1000, options),
  awaitLoad: (options) => file.awaitLoad(range, options),
  retryLoad: (options) => file.retryLoad(range, options),
  released: (options) => file.released(options),
  waitForEvictions: (options) => file.waitForEvictions(options),
  openSource: (options) => openSource(where, options),
  serveMap: (options) => serveMap(file, options),
  exportTo: (options) => exportTo(file, join(directory.path, "export"), options),
  importFrom: (options) => importFrom(join(directory.path, "export"), options),
  "Store.open": (options) => Store.open(join(directory.path, "store"), options),
  "Store.attach": (options) => Store.attach(store.share(), options),
  "Store.map": (options) => store.map("m", options),
  "StoreMap.set": (options) => store.map("m").set("a", new Uint8Array(1), options),
};

test.each(Object.entries(calls))("%s refuses a misspelled option", async (_, call) => {
  const work = async () => call({ backgroud: true } as never);
  await expect(work()).rejects.toThrow(
    new TypeError('Unknown option "backgroud": did you mean "background"?'),
  );
});

test.each([
  ["readonly", "readOnly"],
  ["limit_bytes", "limitBytes"],
  ["limit", "limitBytes"],
  ["compress", "compression"],
  ["ttl", "ttlMs"],
  ["onprogess", "onProgress"],
  ["mapepd", "mapped"],
  ["checkpointEvery", "checkpointEveryMs"],
  ["Kind", "kind"],
])("the option %s is taken for %s", (given, meant) => {
  expect(() => MemoryFile.create({ [given]: 1 })).toThrow(`did you mean "${meant}"?`);
});

test("options within options are checked, too", async () => {
  for (const options of [{ cache: { directry: "x" } }, { s3: { endpont: "x" } }])
    await expect(MemoryFile.loadFrom(where, options as never)).rejects.toThrow("did you mean");
  expect(() => MemoryFile.create({ memoryPressure: { stalMs: 1 } as never })).toThrow("stallMs");
  expect(() => createQueue("inline", { capacty: 1 } as never)).toThrow('did you mean "capacity"');
});

test("options of other functions, and of programs, are ignored", () => {
  const own = { background: true, timeout: 5, verbose: true, retries: 3, id: 1, url: "", debug: 1 };
  MemoryFile.create(own as object as MemoryFileOptions).destroy();
});

test("OPTION_NAMES has the name of each option, and no other", () => {
  const isComplete: [Exclude<Options, Known>, Exclude<Known, Options>] extends [never, never]
    ? true
    : false = true;
  expect(isComplete).toBe(true);
});
