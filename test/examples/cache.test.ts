/**
 * Runs examples/cache as a user does: with evictions by hand everywhere, and under real memory
 * pressure on machines that allow a limited cgroup.
 */
import { expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { makeLimitedCgroup } from "../../examples/cache/limited-cgroup.ts";
import { MemoryFile } from "../../src/index.ts";

const main = join(import.meta.dir, "../../examples/cache/main.ts");

async function run(...options: string[]): Promise<string> {
  const example = Bun.spawn([process.execPath, main, ...options], {
    stdout: "pipe",
    stderr: "pipe",
  });
  const [output, errors] = await Promise.all([
    new Response(example.stdout).text(),
    new Response(example.stderr).text(),
  ]);
  expect(`${errors}${await example.exited}`).toBe("0");
  return output;
}

test("startEvictions returns the cache's memory, except entries in use", async () => {
  const output = await run("--no-cgroup", "--entries", "32");
  expect(output).toContain("filled: 0 hits, 32 misses");
  expect(output).toContain("used again: 32 hits, 0 misses");
  expect(output).toContain("evictions are started by hand");
  expect(output).toContain("evicted 24 of 32 entries; 8 are in use and stay");
  expect(output).toContain("committed: 8 MiB, by fstat 8 MiB");
  expect(output).toContain("used again: 8 hits, 24 misses, all contents right");
}, 60_000);

const canPress = await (async () => {
  const cgroup = makeLimitedCgroup(64 * 2 ** 20);
  if (!("path" in cgroup)) return false;
  await cgroup.remove();
  using file = MemoryFile.create();
  return file.evictionTrigger.kind === "pressure";
})();

test.skipIf(!canPress)(
  "the cache evicts when the kernel reports memory pressure",
  async () => {
    const output = await run("--wait-seconds", "60");
    expect(output).toContain("evictions start by   memory pressure, told by /");
    expect(output).toContain("the host is short of memory: the cache is asked to evict");
    expect(output).toContain("evicted 120 of 128 entries; 8 are in use and stay");
    expect(output).toContain("committed: 8 MiB, by fstat 8 MiB");
    expect(output).toContain("used again: 8 hits, 120 misses, all contents right");
    expect(existsSync(/^cgroup +(\S+) /m.exec(output)![1]!)).toBe(false);
  },
  120_000,
);
