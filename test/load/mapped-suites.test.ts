/**
 * Suites of MemoryFile over mapped memory: model, random traces, checkpoints, incremental saves,
 * other threads. CONTRIBUTING.md says how to run the others.
 */
import { expect, test } from "bun:test";
import { join } from "node:path";

const root = join(import.meta.dir, "../..");
const preload = join(root, "test/support/mapped-preload.ts");
const suites = [
  "test/file/model.test.ts",
  "test/file/random-trace.test.ts",
  "test/checkpoint/round-trip.test.ts",
  "test/save/incremental.test.ts",
  "test/threads/attach.test.ts",
];

test("MemoryFile passes its suites if loadFrom maps page files", async () => {
  const command = [process.execPath, "test", "--timeout", "60000", "--preload", preload];
  const run = Bun.spawn([...command, ...suites], { cwd: root, stdout: "pipe", stderr: "pipe" });
  const [output, errors] = await Promise.all([
    new Response(run.stdout).text(),
    new Response(run.stderr).text(),
  ]);
  const exitCode = await run.exited;
  expect(exitCode === 0 ? "" : `${output}${errors}`).toBe("");
  expect(errors).toMatch(/^ *[1-9]\d* pass$/m);
}, 300_000);
