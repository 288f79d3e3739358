/** Runs bench/threads.ts at its smallest size: every line is present, whatever the figures. */
import { expect, test } from "bun:test";
import { join } from "node:path";

test("bench/threads.ts measures the lock, throughput, critical sections and awaits", async () => {
  const run = Bun.spawnSync(
    [process.execPath, join(import.meta.dir, "../../bench/threads.ts"), "--smoke"],
    {
      stderr: "pipe",
      timeout: 50_000,
    },
  );
  const output = run.stdout.toString();
  expect(`${run.stderr}${run.exitCode}`).toBe("0");
  expect(output).toMatch(/lock, uncontended: \d+ ns a pair with it, \d+ without/);
  expect(output).toMatch(
    /throughput, \d+ live ranges: [\d.]+ million pairs\/s by one Worker, [\d.]+ by two in one file, [\d.]+×/,
  );
  expect(output).toMatch(/critical sections with \d+ runs: toString's [\d.]+ ms/);
  for (const who of [
    "main thread",
    "Worker",
    "Worker, main thread busy",
    "blocked Worker, main thread busy",
  ]) {
    expect(output).toMatch(
      new RegExp(
        `awaits from the ${who}: (p50 [\\d.]+ ms, p99 [\\d.]+ ms|none, all was loaded before the ` +
          "first)",
      ),
    );
  }
}, 60_000);
