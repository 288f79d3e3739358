/**
 * Programs at their limit of threads or descriptors: each public call does its work, or fails with
 * a typed error and leaves nothing open.
 */
import { expect, test } from "bun:test";
import { join } from "node:path";

const program = join(import.meta.dir, "support/scarce-program.ts");

async function run(command: readonly string[]): Promise<{ succeeded: number; failed: number }> {
  const child = Bun.spawn([...command], { stdout: "pipe", stderr: "pipe", timeout: 60_000 });
  const [stdout, stderr] = await Promise.all([child.stdout.text(), child.stderr.text()]);
  const lines = stdout.trim().split("\n");
  const counts = lines.pop() ?? "";
  expect([await child.exited, stderr, lines]).toEqual([0, "", []]);
  return JSON.parse(counts) as { succeeded: number; failed: number };
}

test("a public call without descriptors succeeds or throws a typed error", async () => {
  const script = 'ulimit -n 100; exec "$0" "$@"';
  const levels = "0,1,2,3,5,8,12,20";
  const counts = await run(["sh", "-c", script, process.execPath, program, "descriptors", levels]);
  expect(counts.failed).toBeGreaterThan(20);
  expect(counts.succeeded).toBeGreaterThan(20);
}, 60_000);

/** A user without a limit of threads cannot be without threads. */
const isRoot = process.getuid?.() === 0 && Bun.which("setpriv") !== null;
const asNobody = ["setpriv", "--reuid", "65534", "--clear-groups", process.execPath];
const canRun = isRoot && Bun.spawnSync([...asNobody, "-e", `require("${program}/../stamped.ts")`]);

test.skipIf(canRun === false || canRun.exitCode !== 0)(
  "a public call without threads succeeds or throws a typed error",
  async () => {
    const counts = await run([...asNobody, program, "threads"]);
    expect(counts.failed).toBeGreaterThan(0);
    expect(counts.succeeded).toBeGreaterThan(5);
  },
  60_000,
);

test.each([0, 1, 2, 3, 5, 8, 11])(
  "modules that are imported on first use are found later if %p descriptors are too few",
  async (left) => {
    const program = join(import.meta.dir, "support/scarce-imports-program.ts");
    const command = ["sh", "-c", 'ulimit -n 100; exec "$0" "$@"', process.execPath, program];
    const child = Bun.spawn([...command, `${left}`], { stdout: "pipe", stderr: "inherit" });
    const [without, later] = JSON.parse(await child.stdout.text()) as [string[], string[]];
    expect(without).toEqual(["refresh EMFILE", "serveMap EMFILE", "s3 EMFILE"]);
    expect(later).toEqual(["refresh done", "serveMap done", "s3 ERR_REMOTE"]);
  },
);
