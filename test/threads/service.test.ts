/**
 * The service thread: background work continues while the threads that caused it are blocked or
 * gone.
 */
import { afterEach, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MemoryFile } from "../../src/index.ts";
import { coreOf } from "../../src/file/memory-file.ts";
import { Word } from "../../src/control/control.ts";
import { ThreadPool } from "../../src/threads/pool.ts";
import { isThreadAlive } from "../../src/threads/thread.ts";
import { namedDescriptors } from "../safety/support/descriptors.ts";
import { Actor, Gate } from "./support/actor.ts";

const MiB = 2 ** 20;
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
  while (!condition()) await Bun.sleep(5);
}

const isMapped = (name: string): boolean =>
  readFileSync("/proc/self/maps", "utf8").includes(`memfd:${name}`);

test("the service thread releases the waste of a thread that blocks before its turn", async () => {
  using file = MemoryFile.create();
  const worker = await attached(file);
  const range = await worker.call("allocate", 16 * MiB);
  await worker.call("fill", range, 1);
  const blocked = worker.call("dropAndBlock", range, 1500);
  await until(() => file.allocatedBytes === 0);
  await until(() => file.totalUsageBytes === 0);
  expect(await Promise.race([blocked.then(() => "returned"), Bun.sleep(0)])).toBeUndefined();
  await blocked;
});

test("the service thread releases waste while the releasing thread blocks", async () => {
  using file = MemoryFile.create();
  const worker = await attached(file);
  const [own, other] = [await worker.call("allocate", MiB), file.allocate(16 * MiB)];
  file.view(other).fill(1);
  const blocked = worker.call("dropAndBlock", own, 1500);
  await until(() => file.allocatedBytes === other.length);
  file.decRef(other);
  await until(() => file.totalUsageBytes === 0);
  await blocked;
});

test("the file outlives its service thread: another thread starts one", async () => {
  const owner = new Actor();
  const handle = await owner.call("create", "service-outlived");
  using file = MemoryFile.attach(handle);
  const { words } = coreOf(file);
  await owner.terminate();
  await until(() => {
    const service = Atomics.load(words, Word.Service);
    return service !== 0 && isThreadAlive(service);
  });
  const worker = await attached(file);
  const range = await worker.call("allocate", 16 * MiB);
  await worker.call("fill", range, 1);
  const blocked = worker.call("dropAndBlock", range, 1500);
  await until(() => file.allocatedBytes === 0 && file.totalUsageBytes === 0);
  await blocked;
});

test("the service thread unmaps a destroyed file whose last thread died", async () => {
  const file = MemoryFile.create({ name: "service-abandoned" });
  const [destroying, blocking] = [await attached(file), await attached(file)];
  const range = file.allocate(MiB);
  void blocking.call("dropAndBlock", range, 60_000);
  await until(() => file.allocatedBytes === 0);
  coreOf(file).detach();
  await destroying.call("destroy");
  await destroying.terminate();
  expect(isMapped("service-abandoned")).toBe(true);
  void blocking.terminate();
  await until(() => !isMapped("service-abandoned"));
});

test.each(["auto", "workers", "inline"] as const)(
  "the service thread reads a load whose thread is blocked, and closes its files (queue %s)",
  async (queue) => {
    const directory = mkdtempSync(join(tmpdir(), "pgalloc-service-"));
    const source = MemoryFile.create();
    const range = source.allocate(64 * MiB);
    source.view(range).fill(7);
    await source.saveTo(directory);
    source.destroy();
    const owner = new Actor();
    actors.push(owner);
    const gate = new Gate();
    using file = MemoryFile.attach(await owner.call("loadAndBlock", directory, queue, gate.words));
    const middle = { start: 24 * MiB, end: 28 * MiB };
    await file.awaitLoad(middle);
    expect(file.view(middle).every((byte) => byte === 7)).toBe(true);
    await file.awaitLoad();
    await until(() => !namedDescriptors().some((path) => path.startsWith(directory)));
    gate.open();
    if (queue === "inline") expect(await owner.call("missingWhenBlocked")).toBe(true);
    rmSync(directory, { recursive: true });
  },
);

test("destroy unmaps a served file at once", async () => {
  const file = MemoryFile.create({ name: "service-short" });
  file.allocate(MiB);
  file.share();
  await Bun.sleep(300);
  file.destroy();
  expect(isMapped("service-short")).toBe(false);
});

test("one service thread serves all files of a thread", async () => {
  MemoryFile.create().share();
  await Bun.sleep(100);
  const before = readdirSync("/proc/self/task").length;
  const files = Array.from({ length: 100 }, () => MemoryFile.create());
  for (const file of files) file.share();
  await Bun.sleep(100);
  expect(readdirSync("/proc/self/task").length).toBeLessThanOrEqual(before + 2);
  for (const file of files) file.destroy();
});

test("idle threads of a pool end by themselves", async () => {
  const pool = new ThreadPool(new URL("./support/worker.ts", import.meta.url), 0, 100);
  await Promise.all([pool.run("echo", 1).done, pool.run("sleep", 50).done]);
  // One of them may have ended already.
  expect(pool.count().busy).toBe(0);
  await until(() => pool.count().idle === 0);
});
