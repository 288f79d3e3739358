/**
 * A program of lifetime.test.ts, in a process of its own: makes and destroys 10,000 files, and
 * tells what that left behind.
 */
import { readdirSync, readFileSync } from "node:fs";
import { MemoryFile } from "../../../src/index.ts";

async function round(count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    MemoryFile.create({ name: "many" }).destroy();
    // A finished wait is removed in a turn of the event loop.
    if (i % 100 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
}

async function measure(): Promise<{ descriptors: number; rssBytes: number }> {
  Bun.gc(true);
  await Bun.sleep(10);
  return { descriptors: readdirSync("/proc/self/fd").length, rssBytes: process.memoryUsage.rss() };
}

await round(1000);
const before = await measure();
await round(9000);
const after = await measure();
const left = {
  descriptors: after.descriptors - before.descriptors,
  bytes: after.rssBytes - before.rssBytes,
  mappings: readFileSync("/proc/self/maps", "utf8").split("memfd:many").length - 1,
};
console.log(JSON.stringify(left));
