/** An open store keeps all other writers out of its directory, in this and other processes. */
import { afterAll, expect, test } from "bun:test";
import {
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
} from "node:fs";
import { join } from "node:path";
import { errnoNumber, setFaultHook } from "../../ffi/index.ts";
import { Store } from "../../src/data/index.ts";
import { exportTo } from "../../src/gvisor/index.ts";
import { MemoryFile, saveAll } from "../../src/index.ts";
import { temporaryDirectory } from "./support/support.ts";

const directory = temporaryDirectory();
afterAll(directory.remove);
let count = 0;
const place = () => join(directory.path, `${count++}`);
const root = join(import.meta.dir, "../..");

const file = MemoryFile.create();
file.view(file.allocate(4096))[0] = 1;
const elsewhere = place();
await file.saveTo(elsewhere);
const copyTo = (where: string) =>
  Bun.spawnSync([process.execPath, join(root, "src/cli/main.ts"), "copy", elsewhere, where]);

async function openFilled(where: string): Promise<Store> {
  const store = await Store.open(where, { create: true });
  store.map("m").set("a", new Uint8Array([1]));
  await store.checkpoint();
  return store;
}

const writers: Record<string, (where: string, store: Store) => Promise<unknown>> = {
  saveTo: (where) => file.saveTo(where),
  "saveTo of the store's own memory": (where, store) => store.memory.saveTo(where),
  "compact of the store's own memory": (where, store) => store.memory.compact(where),
  saveAll: (where) => saveAll(where, { file }),
  exportTo: (where) => exportTo(file, where),
};

test.each(Object.entries(writers))("%s into an open store is refused", async (_, write) => {
  const where = place();
  const store = await openFilled(where);
  const link = place();
  symlinkSync(where, link);
  const before = readdirSync(where).toSorted();
  for (const path of [where, link]) {
    await expect(write(path, store)).rejects.toMatchObject({
      code: "ERR_CHECKPOINT_BUSY",
      pid: process.pid,
      message: expect.stringContaining("a store is open"),
    });
  }
  expect(readdirSync(where).toSorted()).toEqual(before);
  await store.close();
  await using again = await Store.open(where, { background: false });
  expect(again.map("m").get("a")).toEqual(new Uint8Array([1]));
});

test("pgalloc copy into an open store is refused, and names the process", async () => {
  const where = place();
  await using store = await openFilled(where);
  const { exitCode, stderr } = copyTo(where);
  expect(exitCode).not.toBe(0);
  expect(stderr.toString()).toContain(`Process ${process.pid} has '${where}'`);
  await store.checkpoint();
});

test("Store.open names the process that has the store", async () => {
  const where = place();
  await using _ = await openFilled(where);
  await expect(Store.open(where)).rejects.toMatchObject({
    code: "ERR_STORE_BUSY",
    pid: process.pid,
  });
});

test("a closed store leaves no file of its own", async () => {
  const where = place();
  const store = await openFilled(where);
  await store.close();
  expect(
    readdirSync(where).filter((name) => name !== "meta" && !name.startsWith("pages-")),
  ).toEqual([]);
  await file.saveTo(where);
});

test("a store whose directory was moved away locks the one that it makes", async () => {
  const where = place();
  const moved = place();
  await using store = await openFilled(where);
  renameSync(where, moved);
  await store.checkpoint();
  expect(existsSync(join(where, "meta"))).toBe(true);
  await expect(file.saveTo(where)).rejects.toMatchObject({ code: "ERR_CHECKPOINT_BUSY" });
  await using copy = await Store.open(moved, { background: false });
  expect(copy.map("m").size).toBe(1);
  rmSync(where, { recursive: true });
  await store.checkpoint();
  expect(existsSync(join(where, "meta"))).toBe(true);
});

test("a store does not save into a directory that another one has made", async () => {
  const where = place();
  const store = await openFilled(where);
  renameSync(where, place());
  const other = await openFilled(where);
  await expect(store.checkpoint()).rejects.toMatchObject({ code: "ERR_CHECKPOINT_BUSY" });
  store[Symbol.dispose]();
  await other.close();
});

test("a checkpoint of hard links is a checkpoint of its own", async () => {
  const where = place();
  const linked = place();
  await using store = await openFilled(where);
  mkdirSync(linked);
  for (const name of readdirSync(where)) linkSync(join(where, name), join(linked, name));
  await using second = await Store.open(linked, { background: false });
  second.map("m").set("b", new Uint8Array([2]));
  await second.checkpoint();
  await store.checkpoint();
  await using reader = await Store.open(where, { readOnly: true, background: false });
  expect(reader.map("m").size).toBe(1);
});

test.each(["EBADF", "ENOLCK", "ENOTSUP"])("a store works without locks (%s)", async (code) => {
  const where = place();
  setFaultHook((call) => (call === "flock" ? { errno: errnoNumber(code) } : undefined));
  try {
    const store = await openFilled(where);
    await store.close();
    await file.saveTo(place());
  } finally {
    setFaultHook(undefined);
  }
  await using store = await Store.open(where, { background: false });
  expect(store.map("m").size).toBe(1);
});
