/**
 * The rules of docs/memory-order.md, each with the interleaving that would break it: a Worker is
 * stopped between the two steps, this thread does the other side's part, and the Worker continues.
 */
import { afterEach, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import {
  CHUNK_SIZE,
  DestroyedError,
  FileRange,
  MemoryFile,
  NotLoadedError,
  PAGE_SIZE,
} from "../../src/index.ts";
import { LoadWord, PAGES_PER_UNIT } from "../../src/load/load-tables.ts";
import { coreOf } from "../../src/file/memory-file.ts";
import { Word } from "../../src/control/control.ts";
import { setInterleavingHook } from "../../src/control/interleave.ts";
import { THREAD_ID } from "../../src/threads/thread.ts";
import { Actor, failureOf } from "./support/actor.ts";
import { heldLoad } from "./support/held-load.ts";

const actors: Actor[] = [];

async function attached(file: MemoryFile): Promise<Actor> {
  const actor = new Actor();
  actors.push(actor);
  await actor.call("attach", file.share());
  return actor;
}

afterEach(async () => {
  await Promise.all(actors.splice(0).map((actor) => actor.terminate()));
});

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await Bun.sleep(2);
}

function isMapped(name: string): boolean {
  return readFileSync("/proc/self/maps", "utf8").includes(`memfd:${name}`);
}

test("lock: one thread is inside at a time, and the next one sees what it changed", async () => {
  using file = MemoryFile.create();
  const [inside, outside] = [await attached(file), await attached(file)];
  const holding = await inside.stopAt("lock: taken");
  const first = inside.call("allocate", PAGE_SIZE);
  await holding.reached();
  const waiting = await outside.stopAt("lock: marked contended");
  let isDone = false;
  const second = outside.call("allocate", PAGE_SIZE).finally(() => {
    isDone = true;
  });
  await waiting.reached();
  waiting.open();
  await Bun.sleep(20);
  expect(isDone).toBe(false);
  holding.open();
  expect([await first, await second].map(({ start }) => start)).toEqual([0, PAGE_SIZE]);
});

test("lock: without a handle to the file it is not taken, and from share() on it is", () => {
  using file = MemoryFile.create();
  const { words } = coreOf(file);
  const seen: number[] = [];
  setInterleavingHook((point) => {
    if (point === "lock: taken") seen.push(words[Word.Lock]!);
  });
  try {
    file.allocate(PAGE_SIZE);
    file.share();
    file.allocate(PAGE_SIZE);
  } finally {
    setInterleavingHook(undefined);
  }
  expect(seen).toEqual([0, THREAD_ID]);
  expect(words[Word.Lock]).toBe(0);
});

test("lock: released between the mark and the sleep, it is taken at once", async () => {
  using file = MemoryFile.create();
  const worker = await attached(file);
  const { allocator, words } = coreOf(file);
  allocator.lock();
  const marked = await worker.stopAt("lock: marked contended");
  const call = worker.call("allocate", PAGE_SIZE);
  await marked.reached();
  allocator.unlock();
  expect(words[Word.Lock]).toBe(0);
  marked.open();
  await call;
  // If it had slept until its check of the owner, it would have reached the point again.
  expect(marked.count).toBe(1);
  expect(words[Word.Lock]).toBe(0);
});

test("attach: destroyed and unmapped before the slot is taken, no address is touched", async () => {
  const file = MemoryFile.create({ name: "order-early" });
  file.allocate(PAGE_SIZE);
  const worker = new Actor();
  actors.push(worker);
  const looked = await worker.stopAt("attach: looked at Destroyed");
  const call = worker.call("attach", file.share());
  await looked.reached();
  file.destroy();
  expect(isMapped("order-early")).toBe(false);
  looked.open();
  expect(await failureOf(call)).toMatchObject({ code: "ERR_DESTROYED" });
});

test("attach: destroyed after the slot is taken, the memory stays", async () => {
  const file = MemoryFile.create({ name: "order-late" });
  file.allocate(PAGE_SIZE);
  const worker = new Actor();
  actors.push(worker);
  const took = await worker.stopAt("attach: took a slot");
  const call = worker.call("attach", file.share());
  await took.reached();
  file.destroy();
  await Bun.sleep(50);
  expect(isMapped("order-late")).toBe(true);
  took.open();
  expect(await failureOf(call)).toMatchObject({ code: "ERR_DESTROYED" });
  await until(() => !isMapped("order-late"));
});

test("destroy: the memory stays for the destroying thread while others leave", async () => {
  const file = MemoryFile.create({ name: "order-mark" });
  const range = file.allocate(PAGE_SIZE);
  const worker = await attached(file);
  await worker.call("keepView", range);
  const marked = await worker.stopAt("destroy: marked");
  const call = worker.call("destroy");
  await marked.reached();
  expect(() => file.view(range)).toThrow(DestroyedError);
  await Bun.sleep(50);
  expect(isMapped("order-mark")).toBe(true);
  marked.open();
  await call;
  await until(() => !isMapped("order-mark"));
});

test("unmapping: of two threads that see no slot in use, one unmaps", async () => {
  const file = MemoryFile.create({ name: "order-last" });
  const worker = await attached(file);
  const found = await worker.stopAt("leave: found no slot in use");
  file.destroy();
  // This thread keeps checking, too: the second thread must see that the file is unmapped.
  await found.reached();
  await until(() => !isMapped("order-last"));
  // The file does not own later mappings there.
  using other = MemoryFile.create({ name: "order-other" });
  const range = other.allocate(PAGE_SIZE);
  other.view(range)[0] = 5;
  found.open();
  await worker.call("threadId");
  await Bun.sleep(50);
  expect(other.view(range)[0]).toBe(5);
});

test("growth: new chunks are mapped before the size says so", async () => {
  using file = MemoryFile.create();
  const worker = await attached(file);
  file.allocate(PAGE_SIZE);
  const mapped = await worker.stopAt("grow: chunks mapped");
  const call = worker.call("allocate", CHUNK_SIZE);
  await mapped.reached();
  expect(file.totalSizeBytes).toBe(CHUNK_SIZE);
  const beyond = new FileRange(2 * CHUNK_SIZE - PAGE_SIZE, 2 * CHUNK_SIZE);
  expect(() => file.isLoaded(beyond)).toThrow(RangeError);
  mapped.open();
  const range = await call;
  expect(file.totalSizeBytes).toBe(2 * CHUNK_SIZE);
  const last = { start: range.end - PAGE_SIZE, end: range.end };
  file.view(last)[PAGE_SIZE - 1] = 1;
  expect(await worker.call("read", last, PAGE_SIZE - 1)).toBe(1);
});

test("retry: between the last pending page and its news, failed pages are not loaded", async () => {
  const held = await heldLoad();
  const { file, page, state } = held;
  try {
    held.finish();
    setInterleavingHook((point) => {
      if (point !== "load: none pending") return;
      setInterleavingHook(undefined);
      state.retry(page.start / PAGE_SIZE, page.end / PAGE_SIZE);
    });
    held.fail(1);
    expect(file.isLoaded(page)).toBe(false);
    expect(() => file.view(page)).toThrow(NotLoadedError);
    await file.awaitLoad(page);
    expect(file.view(page)[0]).toBe(9);
    expect(coreOf(file).words[Word.Loading]).toBe(0);
  } finally {
    setInterleavingHook(undefined);
    held.end();
  }
});

test("releaser: waste made between its last look and its end is released", async () => {
  using file = MemoryFile.create();
  const worker = await attached(file);
  const [first, second] = [file.allocate(PAGE_SIZE), file.allocate(PAGE_SIZE)];
  const found = await worker.stopAt("releaser: found no waste");
  await worker.call("decRef", first);
  await found.reached();
  file.decRef(second);
  const { words } = coreOf(file);
  expect(words[Word.WastePages]).toBe(1);
  expect(words[Word.Releaser]).not.toBe(0);
  found.open();
  await until(() => words[Word.WastePages] === 0 && words[Word.Releaser] === 0);
});

test("loaded: a page is loaded once its bit is set, and its bytes are there then", async () => {
  const load = await heldLoad();
  const worker = await attached(load.file);
  load.giveBack();
  const placed = await worker.stopAt("load: bytes in place");
  const call = worker.call("awaitLoadSync", load.page);
  await placed.reached();
  expect(load.file.isLoaded(load.page)).toBe(false);
  expect(() => load.file.view(load.page)).toThrow(NotLoadedError);
  placed.open();
  await call;
  expect(load.file.isLoaded(load.page)).toBe(true);
  expect(load.file.view(load.page).every((byte) => byte === 9)).toBe(true);
  load.finish();
  load.end();
});

test("loaded: a waiter that comes after the bit and before the wake sees the bit", async () => {
  const load = await heldLoad();
  const worker = await attached(load.file);
  load.giveBack();
  const set = await worker.stopAt("load: bits set");
  const call = worker.call("awaitLoadSync", load.page);
  await set.reached();
  await load.file.awaitLoad(load.page);
  load.file.awaitLoadSync(load.page);
  expect(load.file.view(load.page)[0]).toBe(9);
  set.open();
  await call;
  load.finish();
  load.end();
});

test("loaded: a waiter for all is not answered before the last pages are counted", async () => {
  const load = await heldLoad();
  const { file, page } = load;
  const worker = await attached(file);
  load.giveBack();
  load.finish();
  const set = await worker.stopAt("load: bits set");
  const call = worker.call("awaitLoadSync", {
    start: page.start,
    end: page.start + PAGES_PER_UNIT * PAGE_SIZE,
  });
  await set.reached();
  expect(file.isLoaded({ start: 0, end: file.totalSizeBytes })).toBe(true);
  let isAnswered = false;
  const all = file.awaitLoad().then(() => {
    isAnswered = true;
    return file.loadStats();
  });
  await Bun.sleep(20);
  expect(isAnswered).toBe(false);
  set.open();
  const { isLoading, loadedBytes, totalBytes } = await all;
  expect({ isLoading, loadedBytes }).toEqual({ isLoading: false, loadedBytes: totalBytes });
  file.awaitLoadSync();
  await call;
  load.end();
});

test("waiting: loaded between the look and the sleep, the waiter does not sleep", async () => {
  for (const action of ["awaitLoadSync", "awaitLoad"] as const) {
    const load = await heldLoad();
    const worker = await attached(load.file);
    const looked = await worker.stopAt("wait: looked at the bits");
    const call = worker.call(action, load.page);
    await looked.reached();
    load.publish();
    looked.open();
    await call;
    // If it had slept until its check for dead threads, it would have reached the point again.
    expect(looked.count).toBe(1);
    load.finish();
    load.end();
  }
});

test("demand: wanted between the look and the sleep, it does not sleep", async () => {
  const load = await heldLoad();
  const worker = await attached(load.file);
  const idle = await worker.stopAt("demand: found nothing wanted");
  const call = worker.call("serveDemand");
  await idle.reached();
  load.giveBack();
  const { start, end } = load.page;
  load.state.demands.demand(start / PAGE_SIZE, end / PAGE_SIZE);
  idle.open();
  // This thread sleeps without a limit: a lost wake-up would last for ever.
  await until(() => load.state.isLoaded(start / PAGE_SIZE, end / PAGE_SIZE));
  expect(load.file.view(load.page)[PAGE_SIZE - 1]).toBe(9);
  load.finish();
  load.file.destroy();
  await call;
  load.end();
});

test("claims: of two threads that want the same page, one reads it", async () => {
  const load = await heldLoad();
  const [a, b] = [await attached(load.file), await attached(load.file)];
  const before = load.state.words[LoadWord.DemandPages]!;
  load.giveBack();
  const claim = await a.stopAt("load: claimed");
  const first = a.call("awaitLoadSync", load.page);
  await claim.reached();
  const second = b.call("awaitLoadSync", load.page);
  await Bun.sleep(20);
  expect(load.file.isLoaded(load.page)).toBe(false);
  claim.open();
  await Promise.all([first, second]);
  expect(load.state.words[LoadWord.DemandPages]! - before).toBe(1);
  load.finish();
  load.end();
});
