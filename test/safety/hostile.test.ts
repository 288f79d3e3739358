/**
 * Hostile checkpoints of both formats, each loaded as a program would load it, in a process of its
 * own (hostile/program.ts): refused with the right error, or good to use; never a crash, never
 * memory without bound, never a byte written where it does not belong. bench/hostile.ts runs more
 * of them.
 */
import { expect, test } from "bun:test";
import { join } from "node:path";

const program = join(import.meta.dir, "hostile/program.ts");
const CASES = process.env["CI"] === undefined ? 500 : 2000;
/** Fixed, so that a red run is a change's fault. A failure prints the path that replays it. */
const SEED = 20261124;
/**
 * Tables for what the limit of the program allows at most, before it is known that the pages
 * are missing.
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
    // The cases reach both ends: most are refused, and some lies are small enough to be believed.
    expect(found.refused).toBeGreaterThan(CASES / 2);
    expect(found.taken).toBeGreaterThan(CASES / 50);
  },
  60_000,
);
