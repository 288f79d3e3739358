/** What a store says to arguments that it cannot use, and that nothing changes then. */
import { afterAll, afterEach, beforeEach, expect, test } from "bun:test";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Store } from "../../src/data/index.ts";
import { MemoryFile, SyscallError } from "../../src/index.ts";
import { terminateIdleThreads } from "../../src/threads/idle.ts";
import { runProgram } from "../safety/support/run-program.ts";

const DATA = join(import.meta.dir, "../../src/data/index.ts");
const LAYOUT = join(import.meta.dir, "../../src/data/layout.ts");

let root: string;
let store: Store;

beforeEach(async () => {
  root = mkdtempSync(join(tmpdir(), "pgalloc-arguments-"));
  store = await Store.open(join(root, "store"), { create: true });
});
afterEach(() => {
  store[Symbol.dispose]();
  rmSync(root, { recursive: true });
});
afterAll(() => terminateIdleThreads());

test.each<[object, string]>([
  [{ create: "yes" }, 'Expected create to be a boolean, got "yes" (a string)'],
  [{ readOnly: 1 }, "Expected readOnly to be a boolean, got 1"],
  [{ now: 5 }, "Expected now to be a function, got 5"],
  [{ onCheckpointError: 5 }, "Expected onCheckpointError to be a function, got 5"],
])("Store.open with %j throws, and makes no directory", async (options, message) => {
  const directory = join(root, "other");
  await expect(Store.open(directory, { create: true, ...options })).rejects.toThrow(message);
  expect(existsSync(directory)).toBe(false);
});

test("Store.open of a file, or below one, throws a SyscallError", async () => {
  const path = join(root, "file");
  writeFileSync(path, "");
  const open = (where: string) => Store.open(where, { create: true });
  await expect(open(path)).rejects.toThrow(SyscallError);
  await expect(open(path)).rejects.toThrow(
    `ENOTDIR: open failed for '${path}': it, or a part of the path, is not a directory`,
  );
  await expect(open(join(path, "x"))).rejects.toThrow(SyscallError);
});

test("new Store says what to use", () => {
  const construct = Store as unknown as new () => Store;
  expect(() => new construct()).toThrow("use Store.open() or Store.attach()");
});

test("posting a store says what to post", () => {
  expect(() => structuredClone(store)).toThrow("post the result of its share()");
});

const nothing = undefined as never;
const calls: [string, () => unknown, string][] = [
  [
    "attach with readOnly",
    () => Store.attach(store.share(), { readOnly: "no" as never }),
    'Expected readOnly to be a boolean, got "no" (a string)',
  ],
  ["attach with now", () => Store.attach(store.share(), { now: 5 as never }), "Expected now to"],
  [
    "MemoryFile.attach with readOnly",
    () => MemoryFile.attach(store.memory.share(), { readOnly: 1 as never }),
    "Expected readOnly to be a boolean, got 1",
  ],
  ["batch", () => store.batch(nothing), "Expected change to be a function, got undefined"],
  ["drop", () => store.drop(5 as never), "Expected name to be a string, got 5"],
  ["update", () => store.map("m").update("a", nothing), "Expected change to be a function"],
  [
    "set with a number as options",
    () => store.map("m").set("a", new Uint8Array(1), 5 as never),
    "Expected options to be an object, got 5",
  ],
  [
    "setMany of an object",
    () => store.map("m").setMany({ a: 1 } as never),
    "Expected entries as [key, value] pairs, got { a: 1 }",
  ],
  [
    "get of an empty table",
    () => store.table("t", { a: "f64" }).get(5),
    'The table "t" has no rows, got row 5',
  ],
  ["heap.get of a string", () => store.heap.get("7" as never), 'Handle "7" (a string) is not'],
];

test.each(calls)("%s names the mistake", (_, call, message) => {
  expect(call).toThrow(message);
  expect(store.map("m").size).toBe(0);
});

test("whenLoaded names the mistake", async () => {
  await expect(store.whenLoaded(nothing)).rejects.toThrow("Expected use to be a function");
});

test("a forgotten store can be opened again; a shared one keeps its lock", async () => {
  const program = `
    import { Store } from ${JSON.stringify(DATA)};
    const open = (name) => Store.open("DIRECTORY/" + name, { create: true });
    for (const name of ["a", "b", "c", "d", "e", "f"]) {
      await (async () => void (await open(name)).map("m").set("k", new Uint8Array(1)))();
      await Bun.sleep(0);
    }
    const handle = await (async () => (await open("shared")).share())();
    let freed = 0;
    for (let i = 0; i < 15; i++) { Bun.gc(true); await Bun.sleep(20); }
    for (const name of ["a", "b", "c", "d", "e", "f"]) {
      await open(name).then((store) => { freed++; store[Symbol.dispose](); }, () => {});
    }
    const busy = await open("shared").then(() => "opened", ({ code }) => code);
    console.log(freed >= 3, busy, Store.attach(handle).names().length);
    process.exit(0);`;
  expect(await runProgram(program)).toStartWith("0 true ERR_STORE_BUSY 0\n");
});

test("Store.open that fails closes the lock once, however long its store is kept", async () => {
  const program = `
    import { closeSync, fstatSync, openSync } from "node:fs";
    import { Store } from ${JSON.stringify(DATA)};
    import { Root } from ${JSON.stringify(LAYOUT)};
    const store = await Store.open("DIRECTORY/s", { create: true });
    store.arena.root[Root.Names] = -1;
    await store.checkpoint();
    store[Symbol.dispose]();
    await Bun.sleep(0);
    const codes = new Set();
    for (let i = 0; i < 6; i++)
      await Store.open("DIRECTORY/s").catch(({ code }) => codes.add(code));
    // One of these has the number that the lock's descriptor had.
    const files = Array.from({ length: 20 }, () => openSync("/dev/null"));
    for (let i = 0; i < 15; i++) { Bun.gc(true); await Bun.sleep(20); }
    for (const fd of files) { fstatSync(fd); closeSync(fd); }
    console.log(...codes);
    process.exit(0);`;
  expect(await runProgram(program)).toStartWith("0 ERR_CORRUPT_STORE\n");
});
