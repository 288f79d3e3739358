/** Places of checkpoints: what a path means, and what a save may replace. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Store } from "../../src/data/index.ts";
import {
  loadAll,
  MemoryFile,
  NotCheckpointError,
  openSource,
  PAGE_SIZE,
  saveAll,
} from "../../src/index.ts";

const home = process.cwd();
let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "pgalloc-places-"));
  for (const name of ["a", "b"]) mkdirSync(join(directory, name));
  process.chdir(join(directory, "a"));
});
afterEach(() => {
  process.chdir(home);
  rmSync(directory, { recursive: true });
});

/** Calls, then changes the program's directory before anything else runs, then waits. */
async function movingAfter<T>(call: () => Promise<T>): Promise<T> {
  process.chdir(join(directory, "a"));
  const result = call();
  process.chdir(join(directory, "b"));
  return await result;
}

function filled(): MemoryFile {
  const file = MemoryFile.create();
  file.view(file.allocate(PAGE_SIZE)).fill(1);
  return file;
}

test("a relative path is resolved at the call, in every function that accepts one", async () => {
  using file = filled();
  await movingAfter(() => file.saveTo("one"));
  await movingAfter(() => saveAll("all", { main: file }));
  (await movingAfter(() => MemoryFile.loadFrom("one", { path: "memory" }))).destroy();
  (await movingAfter(() => MemoryFile.open("none", { create: true, path: "new" }))).destroy();
  (await movingAfter(() => loadAll("all")))[Symbol.dispose]();
  expect((await movingAfter(() => openSource("one"))).kind).toBe("file");
  await movingAfter(() => file.compact("one"));
  expect(readdirSync(join(directory, "b"))).toEqual([]);
});

test("checkpointEvery saves to the directory of the call after the program has moved", async () => {
  using file = filled();
  const saves = await movingAfter(async () => file.checkpointEvery("often", 1));
  while (saves.lastReport === undefined && saves.failures === 0) await Bun.sleep(1);
  await saves.stop();
  expect(saves.lastReport?.directory).toBe(join(directory, "a", "often"));
  expect(readdirSync(join(directory, "b"))).toEqual([]);
});

test("loadFrom records the working set in the directory of the call", async () => {
  using file = filled();
  await file.saveTo("one");
  const options = { background: true, workingSet: "recorded" };
  using loaded = await movingAfter(() => MemoryFile.loadFrom("one", options));
  await loaded.awaitLoad({ start: 0, end: PAGE_SIZE });
  loaded.markReady();
  const recorded = join(directory, "a", "recorded");
  while (!(await Bun.file(recorded).exists())) await Bun.sleep(1);
  expect(readdirSync(join(directory, "b"))).toEqual([]);
});

test("Store.open keeps the directory of the call for its checkpoints", async () => {
  const store = await movingAfter(() => Store.open("store", { create: true }));
  store.map("m").set("a", new Uint8Array(1));
  await store.checkpoint();
  await store.close();
  expect(readdirSync(join(directory, "b"))).toEqual([]);
});

test("Store.open without create leaves nothing in a mistaken directory", async () => {
  await expect(Store.open("none")).rejects.toMatchObject({ code: "ERR_NO_CHECKPOINT" });
  mkdirSync("empty");
  await expect(Store.open("empty")).rejects.toMatchObject({ code: "ERR_NO_CHECKPOINT" });
  expect(readdirSync(".")).toEqual(["empty"]);
  expect(readdirSync("empty")).toEqual([]);
});

test("a URL of another scheme is a TypeError that names it", async () => {
  using file = filled();
  for (const call of [() => file.saveTo("ftp://host/x"), () => MemoryFile.loadFrom("ftp://host/x")])
    await expect(call()).rejects.toThrow(/s3:\/\/, https:\/\/ or http:\/\/, got "ftp:\/\/host\/x"/);
  expect(readdirSync(".")).toEqual([]);
});

test("saveTo refuses to replace a file named meta that no save made", async () => {
  using file = filled();
  writeFileSync("meta", "about this directory");
  await expect(file.saveTo(".")).rejects.toThrow(NotCheckpointError);
  await expect(saveAll(".", { main: file })).rejects.toMatchObject({
    path: join(directory, "a/meta"),
  });
  expect(readFileSync("meta", "utf8")).toBe("about this directory");
  expect(readdirSync(".")).toEqual(["meta"]);
});

test("saveTo replaces a manifest that is empty or damaged", async () => {
  using file = filled();
  await file.saveTo(".");
  const whole = readFileSync("meta");
  const hit = Buffer.from(whole);
  hit.fill(0xff, 2, 4);
  for (const damaged of [Buffer.alloc(0), Buffer.alloc(whole.length), hit, whole.subarray(0, 40)]) {
    writeFileSync("meta", damaged);
    await file.saveTo(".");
    (await MemoryFile.loadFrom(".")).destroy();
  }
});
