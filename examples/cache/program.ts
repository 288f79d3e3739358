/**
 * The program with the cache. It joins the cgroup that it is given.
 *
 *   bun program.ts [--processes-file FILE] [--entries N] [--neighbour-mib N] [--directory DIR]
 *                  [--wait-seconds N]
 *
 * Without a cgroup it cannot make real pressure, and starts evictions by hand.
 */
import { statfsSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { type EvictionTrigger, MemoryFile } from "pgalloc";
import { PageCache } from "./page-cache.ts";

const TMPFS_MAGIC = 0x01021994;
const ENTRY_BYTES = 2 ** 20;
const IN_USE = 8;

/**
 * Files in a tmpfs are memory that no cache can give back, so the neighbour's file is on a disk.
 */
function diskDirectory(): string {
  return statfsSync(tmpdir()).type === TMPFS_MAGIC ? "/var/tmp" : tmpdir();
}

const { values } = parseArgs({
  options: {
    "processes-file": { type: "string" },
    entries: { type: "string", default: "128" },
    "neighbour-mib": { type: "string", default: "256" },
    directory: { type: "string", default: diskDirectory() },
    "wait-seconds": { type: "string", default: "30" },
  },
});
const entries = Number(values.entries);
const startedAt = performance.now();

function say(text: string): void {
  console.log(`${((performance.now() - startedAt) / 1000).toFixed(1).padStart(6)} s  ${text}`);
}

const mebibytes = (bytes: number) => `${(bytes / 2 ** 20).toFixed(0)} MiB`;

/** The origin of the entries: computed here; read or fetched in a real program. */
function load(key: string, destination: Uint8Array): void {
  destination.fill(Number(key) % 256);
}

/** Uses every entry once, and checks it. */
async function useAll(cache: PageCache): Promise<string> {
  const before = { hits: cache.hits, misses: cache.misses };
  for (let i = 0; i < entries; i++) {
    const sum = await cache.use(String(i), (bytes) => bytes[0]! + bytes[bytes.length - 1]!);
    if (sum !== 2 * (i % 256)) throw new Error(`Entry ${i} is wrong`);
  }
  return `${cache.hits - before.hits} hits, ${cache.misses - before.misses} misses`;
}

function describe(trigger: EvictionTrigger): string {
  if (trigger.kind === "pressure") return `memory pressure, told by ${trigger.path}`;
  return trigger.kind === "idle" ? `none: ${(trigger.reason as Error).message}` : trigger.kind;
}

/** The neighbour runs until the cache was asked for memory, or time is up. True if it was asked. */
async function underPressure(cache: PageCache): Promise<boolean> {
  const file = join(values.directory, `pgalloc-neighbour-${process.pid}`);
  const program = join(import.meta.dir, "neighbour.ts");
  const neighbour = Bun.spawn([process.execPath, program, file, values["neighbour-mib"]], {
    stdout: "pipe",
  });
  say(
    `a neighbour starts: it reads a file of ${values["neighbour-mib"]} MiB over and over, in the ` +
      "same cgroup",
  );
  const until = performance.now() + 1000 * Number(values["wait-seconds"]);
  while (cache.evictions === 0 && performance.now() < until && neighbour.exitCode === null)
    await Bun.sleep(20);
  const wasAsked = cache.evictions > 0;
  if (wasAsked) say("the host is short of memory: the cache is asked to evict");
  await Bun.sleep(500); // the neighbour has the memory now
  neighbour.kill("SIGTERM");
  const read = (await new Response(neighbour.stdout).text()).trim();
  await neighbour.exited;
  say(`the neighbour ends: ${read === "" ? "killed" : `it has read ${read} MiB`}`);
  return wasAsked;
}

if (values["processes-file"] !== undefined)
  writeFileSync(values["processes-file"], String(process.pid));

let file = MemoryFile.create({ name: "cache", memoryPressure: { stallMs: 20, windowMs: 2000 } });
const trigger = file.evictionTrigger;
console.log(`evictions start by   ${describe(trigger)}`);
if (trigger.kind !== "pressure") {
  // A cache whose entries are evicted when the file is idle would be useless.
  file.destroy();
  file = MemoryFile.create({ name: "cache", delayedEviction: "manual" });
}
const cache = new PageCache(file, ENTRY_BYTES, load);
say(`caching is worth it: ${file.shouldCacheEvictable()}`);
say(`filled: ${await useAll(cache)}`);
say(`used again: ${await useAll(cache)}`);
file.updateUsage();
say(`committed: ${mebibytes(file.usage().totalBytes)}`);

// Some entries stay in use all the time, and must stay in memory.
const { promise: done, resolve: finish } = Promise.withResolvers<void>();
const inUse = Array.from({ length: IN_USE }, (_, i) => cache.use(String(i), () => done));
const canPress = values["processes-file"] !== undefined && trigger.kind === "pressure";
if (!canPress || !(await underPressure(cache))) {
  say(
    canPress
      ? "no pressure came in time: evictions are started by hand"
      : "evictions are started by hand",
  );
  file.startEvictions();
}
await file.waitForEvictions();
await file.released();
say(`evicted ${cache.evictions} of ${entries} entries; ${cache.size} are in use and stay`);
say(
  `committed: ${mebibytes(file.usage().totalBytes)}, by fstat ${mebibytes(file.totalUsageBytes)}`,
);
finish();
await Promise.all(inUse);
say(`used again: ${await useAll(cache)}, all contents right`);
file.destroy();
