/**
 * Checkpoints of a store that is written to, also by other threads; kills; loads that end early.
 */
import { afterAll, expect, test } from "bun:test";
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import { Store } from "../../src/data/index.ts";
import { NotLoadedError } from "../../src/index.ts";
import { ACCOUNTS, checkAccounts, FIRST_SUM, openAccounts, transfer } from "./support/accounts.ts";
import { randomOf } from "./support/stamps.ts";
import { hex, temporaryDirectory } from "./support/support.ts";

const directory = temporaryDirectory();
afterAll(directory.remove);
const seed = Number(process.env["PGALLOC_STRESS_SEED"] ?? Date.now() % 2 ** 31);

test("a checkpoint of a store shows one instant while two threads write", async () => {
  const where = join(directory.path, "instant");
  const store = await Store.open(where, { create: true });
  const accounts = openAccounts(store);
  const stop = new Int32Array(new SharedArrayBuffer(4));
  const worker = new Worker(new URL("./support/accounts-worker.ts", import.meta.url), {
    workerData: { handle: store.share(), stop, seed },
  });
  await new Promise((resolve) => worker.once("message", resolve));
  const random = randomOf(seed + 1);
  for (let round = 0; round < 6; round++) {
    let saving = true;
    const saved = store.checkpoint().finally(() => {
      saving = false;
    });
    while (saving) {
      for (let i = 0; i < 20; i++) transfer(store, accounts, random);
      await Bun.sleep(0);
    }
    await saved;
    await using copy = await Store.open(where, { readOnly: true });
    await copy.memory.awaitLoad();
    expect(checkAccounts(copy)).toEqual({ map: FIRST_SUM, table: FIRST_SUM, differ: 0 });
  }
  Atomics.store(stop, 0, 1);
  await new Promise((resolve) => worker.once("exit", resolve));
  expect(checkAccounts(store)).toEqual({ map: FIRST_SUM, table: FIRST_SUM, differ: 0 });
  await store.close();
}, 60_000);

test("checkpoint({ incremental: false }) writes all contents anew", async () => {
  const where = join(directory.path, "anew");
  await using store = await Store.open(where, { create: true });
  const blobs = store.map("blobs", { key: "u32" });
  for (let key = 0; key < 4000; key++) blobs.set(key, new Uint8Array(2000).fill(key));
  await store.checkpoint();
  for (let key = 0; key < 4000; key += 40) blobs.set(key, new Uint8Array(2000).fill(7));
  const scattered = await store.checkpoint();
  expect(scattered.pageFiles).toBe(2);
  const anew = await store.checkpoint({ incremental: false });
  expect(anew).toMatchObject({ pageFiles: 1, writtenBytes: anew.pagesBytes });
  expect(anew.extents).toBeLessThan(scattered.extents / 4);
  await using copy = await Store.open(where, { readOnly: true, background: false });
  expect(copy.map("blobs", { key: "u32" }).get(80)).toEqual(new Uint8Array(2000).fill(7));
  const wrong = { incremental: "no" } as never;
  await expect(store.checkpoint(wrong)).rejects.toThrow("Expected incremental to be a boolean");
});

test("Store.open finds the last checkpoint after SIGKILL", async () => {
  const where = join(directory.path, "killed");
  const program = join(import.meta.dir, "support/accounts-program.ts");
  const random = randomOf(seed);
  let last = 0;
  for (let round = 0; round < 5; round++) {
    const child = Bun.spawn([process.execPath, program, where, String(seed + round)], {
      stdout: "pipe",
      stderr: "inherit",
    });
    const reader = child.stdout.getReader();
    // Its first line says that a checkpoint has been saved.
    await reader.read();
    await Bun.sleep(random(150));
    child.kill("SIGKILL");
    await child.exited;
    await using store = await Store.open(where, { readOnly: true });
    await store.memory.awaitLoad();
    expect(checkAccounts(store)).toEqual({ map: FIRST_SUM, table: FIRST_SUM, differ: 0 });
    const made = new DataView(store.map("counts").get("transfers")!.buffer).getFloat64(0, true);
    expect(made).toBeGreaterThanOrEqual(last);
    last = made;
  }
  expect(last).toBeGreaterThan(ACCOUNTS);
}, 60_000);

test("a store whose load was aborted throws NotLoadedError, and changes nothing", async () => {
  const where = join(directory.path, "aborted");
  const first = await Store.open(where, { create: true });
  const map = first.map("m");
  const value = (i: number) => new Uint8Array(3000).fill(i);
  for (let i = 0; i < 20_000; i++) map.set(`key-${i}`, value(i));
  await first.close();

  const abort = new AbortController();
  await using store = await Store.open(where, { signal: abort.signal });
  const again = await store.whenLoaded(() => store.map("m"));
  abort.abort(new Error("enough"));
  let missing = 0;
  for (let i = 0; i < 20_000; i += 100) {
    try {
      again.set(`key-${i}`, value(i + 1));
      again.set(`key-${i}`, value(i));
    } catch (error) {
      if (!(error instanceof NotLoadedError)) throw error;
      missing++;
    }
  }
  await store.memory.retryLoad();
  for (let i = 0; i < 20_000; i += 50) expect(hex(again.get(`key-${i}`))).toBe(hex(value(i)));
  expect(again.size).toBe(20_000);
  console.log(`    ${missing} of 200 writes met a page that was not loaded`);
}, 60_000);

test("writes during the background load of a store are all kept", async () => {
  const where = join(directory.path, "background");
  const first = await Store.open(where, { create: true });
  for (let i = 0; i < 20_000; i++) first.map("m").set(`key-${i}`, new Uint8Array(3000).fill(i));
  await first.close();
  await using store = await Store.open(where);
  const map = await store.whenLoaded(() => store.map("m"));
  for (let i = 0; i < 20_000; i += 40) {
    await store.whenLoaded(() => map.set(`key-${i}`, new Uint8Array(2000).fill(1)));
    await store.whenLoaded(() => map.delete(`key-${i + 1}`));
    await store.whenLoaded(() => map.set(`new-${i}`, new Uint8Array(10)));
  }
  await store.memory.awaitLoad();
  expect(map.size).toBe(20_000);
  for (let i = 0; i < 20_000; i += 40) {
    expect(map.get(`key-${i}`)!.length).toBe(2000);
    expect(map.has(`key-${i + 1}`)).toBe(false);
    expect(map.get(`key-${i + 2}`)!.length).toBe(3000);
    expect(map.has(`new-${i}`)).toBe(true);
  }
}, 60_000);
