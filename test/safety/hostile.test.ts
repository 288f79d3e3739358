/**
 * Hostile checkpoints of both formats, each loaded as a program loads it, in a process of its own
 * (hostile/program.ts): refused with the right error, or usable. Never a crash, unbounded memory,
 * or a byte written to a wrong place. bench/hostile.ts runs more of them.
 */
import { expect, test } from "bun:test";
import { join } from "node:path";

const program = join(import.meta.dir, "hostile/program.ts");
const CASES = process.env["CI"] === undefined ? 500 : 2000;
/** Fixed, so that a failure comes from a change. It prints the path that replays it. */
const SEED = 20261124;
/**
 * The most that the program's limit allows for tables, before the pages are known to be missing.
 */
const GROWN_MIB_MAX = 512;

test.each(["native", "gvisor"])(
  `%s: ${CASES} cases`,
  async (format) => {
    const child = Bun.spawn([process.execPath, program, format, String(CASES), String(SEED)], {
      stdout: "pipe",
      stderr: "pipe",
    });
    const [stdout, stderr, exitCode] = await Promise.all([
      child.stdout.text(),
      child.stderr.text(),
      child.exited,
    ]);
    expect([exitCode, child.signalCode, stderr.slice(0, 5000)]).toEqual([0, null, ""]);
    const found = JSON.parse(stdout);
    console.log(`    ${stdout.trim()}`);
    expect(found.cases).toBe(CASES);
    expect(found.grownMiB).toBeLessThan(GROWN_MIB_MAX);
    // The cases reach both ends: most are refused, and some small lies are believed.
    expect(found.refused).toBeGreaterThan(CASES / 2);
    expect(found.taken).toBeGreaterThan(CASES / 50);
  },
  60_000,
);
