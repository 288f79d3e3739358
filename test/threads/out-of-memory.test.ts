/** Every thread provides memory for an allocation before it throws OutOfMemoryError. */
import { afterEach, expect, test } from "bun:test";
import { MemoryFile, OutOfMemoryError, PAGE_SIZE } from "../../src/index.ts";
import { Actor, failureOf } from "./support/actor.ts";

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

test("allocate waits for the waste that another thread is releasing", async () => {
  using file = MemoryFile.create({ limitBytes: 4 * MiB });
  const [releasing, allocating] = [await attached(file), await attached(file)];
  const range = await releasing.call("allocate", 3 * MiB);
  await releasing.call("fill", range, 1);
  const gate = await releasing.stopAt("release: began");
  await releasing.call("decRef", range);
  await gate.reached();
  const allocation = allocating.call("allocate", 2 * MiB);
  await Bun.sleep(30);
  gate.open();
  expect(await allocation).toMatchObject({ end: expect.any(Number) });
});

test("allocate takes the waste of a releasing thread that ended", async () => {
  using file = MemoryFile.create({ limitBytes: 4 * MiB });
  const [releasing, allocating] = [await attached(file), await attached(file)];
  const range = await releasing.call("allocate", 3 * MiB);
  await releasing.call("fill", range, 1);
  const gate = await releasing.stopAt("release: began");
  await releasing.call("decRef", range);
  await gate.reached();
  const allocation = allocating.call("allocate", 2 * MiB);
  await releasing.terminate();
  expect(await allocation).toMatchObject({ end: expect.any(Number) });
});

test("allocate evicts what this thread marked, before it returns", () => {
  using file = MemoryFile.create({ limitBytes: 4 * MiB, delayedEviction: "disabled" });
  const range = file.allocate(3 * MiB);
  file.markEvictable({ evict: () => file.decRef(range) }, { start: 0, end: 1 });
  file.allocate(2 * MiB);
  expect(file.allocatedBytes).toBe(2 * MiB);
});

test("allocate inside of an eviction does not ask the users again", () => {
  using file = MemoryFile.create({ limitBytes: MiB, delayedEviction: "disabled" });
  file.allocate(MiB);
  let asked = 0;
  const user = {
    evict: () => {
      asked++;
      file.allocate(MiB);
    },
  };
  file.markEvictable(user, { start: 0, end: 1 });
  expect(() => file.allocate(PAGE_SIZE)).toThrow(OutOfMemoryError);
  expect(asked).toBe(1);
});

test("allocate makes other threads evict what they marked", async () => {
  using file = MemoryFile.create({ limitBytes: 4 * MiB });
  const [caching, allocating] = [await attached(file), await attached(file)];
  await caching.call("cache", 3 * MiB);
  expect(await allocating.call("allocate", 2 * MiB)).toMatchObject({ end: expect.any(Number) });
  expect(file.allocatedBytes).toBe(2 * MiB);
});

test("allocate near the limit starts evictions in all threads", async () => {
  using file = MemoryFile.create({ limitBytes: 16 * MiB });
  const caching = await attached(file);
  await caching.call("cache", MiB);
  file.allocate(14 * MiB);
  while (file.allocatedBytes !== 14 * MiB) await Bun.sleep(1);
});

test("allocate succeeds in two threads that need each other's evictable memory", async () => {
  using file = MemoryFile.create({ limitBytes: 4 * MiB });
  const [one, other] = [await attached(file), await attached(file)];
  await one.call("cache", 2 * MiB);
  await other.call("cache", 2 * MiB);
  const ranges = await Promise.all([one.call("allocate", MiB), other.call("allocate", MiB)]);
  expect(ranges).toHaveLength(2);
});

test("allocate throws if all memory is in use, or may be evicted by hand only", async () => {
  using file = MemoryFile.create({ limitBytes: 4 * MiB, delayedEviction: "manual" });
  const caching = await attached(file);
  await caching.call("cache", 3 * MiB);
  const error = await failureOf(caching.call("allocate", 2 * MiB));
  expect(error).toMatchObject({ name: "OutOfMemoryError", code: "ENOMEM" });
  expect(() => file.allocate(2 * MiB)).toThrow(OutOfMemoryError);
  file.startEvictions();
  await file.waitForEvictions();
  file.allocate(2 * MiB);
});

test("waitForEvictions ends when the file is destroyed, also if a user never answers", async () => {
  const file = MemoryFile.create({ delayedEviction: "disabled" });
  file.markEvictable({ evict: () => new Promise(() => {}) }, { start: 0, end: 1 });
  const waiting = file.waitForEvictions();
  await Bun.sleep(5);
  file.destroy();
  await waiting;
});
