/** A thread frees the holdings of another thread that ended. */
import { afterEach, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freeHoldingsOfDead } from "../../src/control/holdings.ts";
import { MemoryFile, PAGE_SIZE } from "../../src/index.ts";
import { Actor } from "../threads/support/actor.ts";

const actors: Actor[] = [];

function start(): Actor {
  const actor = new Actor();
  actors.push(actor);
  return actor;
}

afterEach(async () => {
  await Promise.all(actors.splice(0).map((actor) => actor.terminate()));
});

/** Mappings and descriptors of memory with that name. */
function traces(name: string): { mappings: number; descriptors: number } {
  const maps = readFileSync("/proc/self/maps", "utf8").split("\n");
  const links = readdirSync("/proc/self/fd").map((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`);
    } catch {
      // The descriptor of the listing itself.
      return "";
    }
  });
  return {
    mappings: maps.filter((line) => line.includes(name)).length,
    descriptors: links.filter((link) => link.includes(name)).length,
  };
}

test("a file that a thread never shared is freed with the thread", async () => {
  const worker = start();
  await worker.call("createOwn", { name: "holdings-own" });
  const range = await worker.call("allocate", PAGE_SIZE);
  await worker.call("fill", range, 1);
  expect(traces("holdings-own")).toEqual({ mappings: 1, descriptors: 1 });
  expect(freeHoldingsOfDead()).toBe(0);
  await worker.terminate();
  // Without a call: the main thread checks by itself.
  while (traces("holdings-own").descriptors > 0) await Bun.sleep(20);
  expect(traces("holdings-own")).toEqual({ mappings: 0, descriptors: 0 });
});

test("a file that a thread shared outlives the thread", async () => {
  const worker = start();
  const handle = await worker.call("create", "holdings-shared");
  await worker.terminate();
  freeHoldingsOfDead();
  using file = MemoryFile.attach(handle);
  file.view(file.allocate(PAGE_SIZE)).fill(1);
});

test("a file that a thread destroyed is freed once", async () => {
  const worker = start();
  await worker.call("createOwn", { name: "holdings-gone" });
  await worker.call("destroy");
  await worker.call("createOwn", { name: "holdings-next" });
  expect(traces("holdings-gone")).toEqual({ mappings: 0, descriptors: 0 });
  await worker.terminate();
  freeHoldingsOfDead();
  expect(traces("holdings-next").descriptors).toBe(0);
});

test("a path whose thread ended can be used at once", async () => {
  const root = mkdtempSync(join(tmpdir(), "pgalloc-holdings-"));
  try {
    const path = join(root, "memory");
    const worker = start();
    await worker.call("createOwn", { path });
    await worker.terminate();
    MemoryFile.create({ path }).destroy();
  } finally {
    rmSync(root, { recursive: true });
  }
});

test("the table is outside of the address space that many files reserve", () => {
  const files = Array.from({ length: 300 }, () => MemoryFile.create());
  expect(freeHoldingsOfDead()).toBe(0);
  for (const file of files) file.destroy();
});
