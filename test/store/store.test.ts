/** Store: opening, names, locks, threads of control. */
import { inspect } from "node:util";
import { afterAll, expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Store } from "../../src/data/index.ts";
import { DestroyedError, MemoryFile } from "../../src/index.ts";
import { hex, temporaryDirectory } from "./support/support.ts";

const directory = temporaryDirectory();
afterAll(directory.remove);
let count = 0;
const place = () => join(directory.path, `${count++}`);
const text = (value: string) => new TextEncoder().encode(value);

test("Store.open without create rejects if there is no checkpoint", async () => {
  expect(Store.open(place())).rejects.toMatchObject({ code: "ERR_NO_CHECKPOINT" });
});

test("Store.open after a restart finds what close saved", async () => {
  const where = place();
  const first = await Store.open(where, { create: true });
  first.map("users").set("ann", text("Ann"));
  first.map("scores", { key: "u32" }).set(7, text("seven"));
  const handle = first.heap.put(text("on the heap"));
  await first.close();
  await using second = await Store.open(where);
  const read = await second.whenLoaded(() => [
    second.map("users").get("ann"),
    second.map("scores", { key: "u32" }).get(7),
    second.heap.get(handle),
  ]);
  expect(read.map(hex)).toEqual(["Ann", "seven", "on the heap"].map((value) => hex(text(value))));
  expect(second.names()).toEqual([
    { name: "users", kind: "map" },
    { name: "scores", kind: "map" },
  ]);
});

test.each([true, false])("Store.open maps the checkpoint (verify: %p)", async (verify) => {
  const where = place();
  const first = await Store.open(where, { create: true });
  for (let i = 0; i < 20_000; i++) first.map("numbers").set(`${i}`, text(`value ${i}`));
  await first.close();
  // Each start writes to mapped pages, and saves over the checkpoint that it has mapped.
  for (let start = 0; start < 3; start++) {
    await using store = await Store.open(where, { mapped: true, verify });
    await store.memory.awaitLoad();
    const { mappedBytes, totalBytes } = store.memory.loadStats();
    expect(mappedBytes).toBeGreaterThan(totalBytes / 2);
    const numbers = store.map("numbers");
    for (let i = start; i < 20_000; i += 7) numbers.set(`${i}`, text(`start ${start} of ${i}`));
    numbers.delete(`${start}`);
    numbers.set(`new ${start}`, text("new"));
  }
  await using last = await Store.open(where, { mapped: true, verify });
  await last.memory.awaitLoad();
  const wrong = Array.from({ length: 20_000 }, (_, i) => i).filter((i) => {
    const expected = i < 3 ? undefined : text(i % 7 < 3 ? `start ${i % 7} of ${i}` : `value ${i}`);
    return hex(last.map("numbers").get(`${i}`)) !== hex(expected);
  });
  expect(wrong).toEqual([]);
  expect(last.map("numbers").size).toBe(20_000);
});

test("Store.open rejects a second writer, and accepts readers", async () => {
  const where = place();
  const writer = await Store.open(where, { create: true });
  writer.map("m").set("a", text("1"));
  await writer.checkpoint();
  expect(Store.open(where)).rejects.toMatchObject({ code: "ERR_STORE_BUSY" });
  await using reader = await Store.open(where, { readOnly: true });
  const map = await reader.whenLoaded(() => reader.map("m"));
  expect(await reader.whenLoaded(() => hex(map.get("a")))).toBe(hex(text("1")));
  expect(() => map.set("a", text("2"))).toThrow(
    expect.objectContaining({ code: "ERR_READ_ONLY_STORE" }),
  );
  expect(reader.checkpoint()).rejects.toMatchObject({ code: "ERR_READ_ONLY_STORE" });
  await writer.close();
  await using next = await Store.open(where);
  expect(next.isReadOnly).toBe(false);
  await reader.close();
  await expect(reader.refresh()).rejects.toThrow(
    "Cannot call refresh() on the store after close()",
  );
});

test("Store.open rejects a checkpoint that is not of a store", async () => {
  const where = place();
  using file = MemoryFile.create();
  file.view(file.allocate(4096))[0] = 1;
  await file.saveTo(where);
  const names = readdirSync(where).toSorted();
  await expect(Store.open(where)).rejects.toMatchObject({ code: "ERR_CORRUPT_STORE" });
  expect(readdirSync(where).toSorted()).toEqual(names);
  await file.saveTo(where, { userData: new Uint8Array(16) });
  await expect(Store.open(where)).rejects.toMatchObject({ code: "ERR_CORRUPT_STORE" });
});

test("map throws for a name of another key type", async () => {
  await using store = await Store.open(place(), { create: true });
  store.map("m", { key: "f64" });
  expect(() => store.map("m", { key: "string" })).toThrow(
    expect.objectContaining({ code: "ERR_WRONG_TYPE" }),
  );
  expect(() => store.map("m")).toThrow(expect.objectContaining({ code: "ERR_WRONG_TYPE" }));
});

test("drop removes a structure, and old objects of it throw", async () => {
  await using store = await Store.open(place(), { create: true });
  const old = store.map("m");
  for (let i = 0; i < 5000; i++) old.set(`${i}`, new Uint8Array(300));
  expect(store.drop("m")).toBe(true);
  expect(store.drop("m")).toBe(false);
  expect(store.names()).toEqual([]);
  expect(() => old.get("1")).toThrow(expect.objectContaining({ code: "ERR_DROPPED" }));
  const next = store.map("m");
  expect(next.size).toBe(0);
  expect(() => old.set("1", text("x"))).toThrow(expect.objectContaining({ code: "ERR_DROPPED" }));
  expect(next.size).toBe(0);
});

test("close ends the store for good", async () => {
  const store = await Store.open(place(), { create: true });
  const map = store.map("m");
  map.set("a", text("1"));
  const view = map.getView("a")!;
  await store.close();
  await store.close();
  expect(view.length).toBe(0);
  expect(() => map.get("a")).toThrow(DestroyedError);
  expect(() => map.set("a", text("2"))).toThrow(DestroyedError);
});

test("checkpointEveryMs saves repeatedly", async () => {
  const where = place();
  const store = await Store.open(where, { create: true, checkpointEveryMs: 20 });
  store.map("m").set("a", text("1"));
  for (let tries = 0; tries < 500 && !existsSync(join(where, "meta")); tries++) await Bun.sleep(20);
  using reader = await Store.open(where, { readOnly: true });
  const found = await reader.whenLoaded(() => reader.map("m").get("a"));
  expect(hex(found)).toBe(hex(text("1")));
  await store.close();
});

test("freed memory returns to the kernel", async () => {
  await using store = await Store.open(place(), { create: true });
  const map = store.map("m");
  const before = store.memory.totalUsageBytes;
  for (let round = 0; round < 2; round++) {
    for (let i = 0; i < 20_000; i++) map.set(`${i}`, new Uint8Array(1000).fill(i));
    expect(store.memory.totalUsageBytes).toBeGreaterThan(before + 20_000_000);
    for (let i = 0; i < 20_000; i++) map.delete(`${i}`);
    await store.memory.released();
    expect(store.memory.totalUsageBytes).toBeLessThan(before + 8_000_000);
  }
});

test("Store.open restores in the background where background is undefined", async () => {
  const where = place();
  const first = await Store.open(where, { create: true });
  first.map("m").set("big", new Uint8Array(4 * 2 ** 20).fill(1));
  await first.close();
  // A restore that is not in the background fails at a damaged page.
  const pages = join(where, readdirSync(where).find((name) => name.startsWith("pages-"))!);
  const bytes = readFileSync(pages);
  bytes[bytes.length >>> 1]! ^= 1;
  writeFileSync(pages, bytes);
  const damaged = { code: "ERR_CORRUPT_CHECKPOINT" };
  await expect(Store.open(where, { background: false })).rejects.toMatchObject(damaged);
  await using store = await Store.open(where, { background: undefined, readOnly: true });
  expect(store.names()).toEqual([{ name: "m", kind: "map" }]);
});

test("map of a reader takes the limits that the map has, and no others", async () => {
  const where = place();
  const limits = { maxEntries: 10, maxBytes: 2 ** 40 };
  const writer = await Store.open(where, { create: true });
  writer.map("m", limits).set("a", text("1"));
  await writer.close();
  await using reader = await Store.open(where, { readOnly: true, background: false });
  expect(reader.map("m", limits).size).toBe(1);
  expect(reader.map("m", { maxBytes: 2 ** 40 }).size).toBe(1);
  for (const others of [{ maxEntries: 11 }, { maxBytes: 2 ** 41 }, { ...limits, maxBytes: 2 ** 8 }])
    expect(() => reader.map("m", others)).toThrow('Cannot call map() to make or change "m"');
  expect(() => reader.map("n")).toThrow('Cannot call map() to make or change "n"');
  expect(() => reader.table("t", { a: "f32" })).toThrow('Cannot call table() to make "t"');
});

test("refresh shows a reader the writer's next checkpoint", async () => {
  const where = place();
  await using writer = await Store.open(where, { create: true });
  const written = writer.map("m");
  const values = (round: number) =>
    Array.from({ length: 3000 }, (_, i) => [`${i}`, text(`${round} ${i}`)] as const);
  written.setMany(values(1));
  writer.map("dropped").set("a", text("1"));
  await writer.checkpoint();
  await using reader = await Store.open(where, { readOnly: true });
  const map = await reader.whenLoaded(() => reader.map("m"));
  const dropped = await reader.whenLoaded(() => reader.map("dropped"));
  expect(await reader.refresh()).toBe(false);
  written.setMany(values(2));
  written.set("new", new Uint8Array(3_000_000));
  writer.drop("dropped");
  writer.map("more").set("b", text("2"));
  expect(await reader.whenLoaded(() => hex(map.get("5")))).toBe(hex(text("1 5")));
  await writer.checkpoint();
  expect(await reader.refresh()).toBe(true);
  for (let i = 0; i < 3000; i += 7)
    expect(await reader.whenLoaded(() => hex(map.get(`${i}`)))).toBe(hex(text(`2 ${i}`)));
  expect((await reader.whenLoaded(() => map.get("new")))!.length).toBe(3_000_000);
  expect(() => dropped.get("a")).toThrow(expect.objectContaining({ code: "ERR_DROPPED" }));
  expect(await reader.whenLoaded(() => hex(reader.map("more").get("b")))).toBe(hex(text("2")));
  expect(writer.refresh()).rejects.toMatchObject({ code: "ERR_UNSUPPORTED" });
});

test("refresh ends stores that attached before it, and says so", async () => {
  const where = place();
  await using writer = await Store.open(where, { create: true });
  writer.map("m").set("a", text("1"));
  await writer.checkpoint();
  await using reader = await Store.open(where, { readOnly: true, background: false });
  const attached = Store.attach(reader.share(), { readOnly: true });
  expect(hex(attached.map("m").get("a"))).toBe(hex(text("1")));
  writer.map("m").set("a", text("2"));
  await writer.checkpoint();
  await reader.refresh();
  expect(() => attached.map("m")).toThrow("on the store after close() or refresh()");
  using again = Store.attach(reader.share(), { readOnly: true });
  expect(hex(await again.whenLoaded(() => again.map("m").get("a")))).toBe(hex(text("2")));
});

test("batch and whenLoaded refuse an async function before they call it", async () => {
  await using store = await Store.open(place(), { create: true });
  const map = store.map("m");
  const write = async () => void map.set("a", text("1"));
  expect(() => store.batch(write)).toThrow("Expected change to be a synchronous function");
  await expect(store.whenLoaded(write)).rejects.toThrow(
    "Expected use to be a synchronous function",
  );
  expect(map.size).toBe(0);
});

test("inspect shows a store and its structures in one line, whatever their state", async () => {
  const where = place();
  const store = await Store.open(where, { create: true });
  const map = store.map("users");
  const table = store.table("docs", { created: "f64" });
  map.set("a", new Uint8Array(1));
  table.push({ created: 1 });
  expect(inspect(map)).toBe('StoreMap "users" { 1 entry }');
  expect(inspect(table)).toBe('Table "docs" { 1 row }');
  expect(inspect(store.heap)).toBe("Heap { 0 blocks }");
  expect(inspect(store)).toStartWith(`Store "${where}" { 2 structures, MemoryFile `);
  expect(inspect(store)).not.toContain("\n");
  store.drop("users");
  expect(inspect(map)).toBe('StoreMap "users" { dropped }');
  await store.close();
  expect(inspect(store)).toBe(`Store "${where}" { closed }`);
  expect(() => table.get(0)).toThrow("Cannot call get() on the store after close()");
});

test("Store.open says what is missing, and what to do", async () => {
  const where = place();
  const open = Store.open(where);
  await expect(open).rejects.toThrow(
    `There is no checkpoint in '${where}': it does not exist (ENOENT); save one there, or begin ` +
      "with open() and { create: true }",
  );
  writeFileSync(where, "");
  await expect(Store.open(where)).rejects.toMatchObject({ code: "ENOTDIR" });
});
