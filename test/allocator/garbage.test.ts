/**
 * The hot calls make no object, closure or BigInt, except for the range that `allocate` returns.
 * Measured as bytes of the JavaScript heap, from JSC's own log of its collections.
 */
import { expect, test } from "bun:test";
import { join } from "node:path";

/** With one object each, they must stay below 8 MB, because a collection would start there. */
const OPERATIONS = 60_000;
/** The smallest object takes 16 bytes. Without any, the sizes in the log vary by less than one. */
const NONE_BYTES = 8;

test("allocate, incRef and decRef make a bounded number of bytes of garbage", async () => {
  const program = join(import.meta.dir, "support/garbage.ts");
  const child = Bun.spawn([process.execPath, program, `${OPERATIONS}`], {
    env: { ...process.env, PGALLOC_ASSERT: "0", BUN_JSC_logGC: "1" },
    stdout: "ignore",
    stderr: "pipe",
  });
  const [log, exitCode] = await Promise.all([child.stderr.text(), child.exited]);
  expect(exitCode).toBe(0);
  const bytes = bytesPerOperation(log);
  // Checks the measurement: it sees an object if there is one.
  const rangeBytes = bytes.get("range")!;
  expect(rangeBytes).toBeGreaterThan(16);
  for (const name of ["nothing", "references", "unique", "view"])
    expect(`${name}: ${bytes.get(name)! < NONE_BYTES}`).toBe(`${name}: true`);
  expect(bytes.get("allocate")).toBeLessThan(rangeBytes + NONE_BYTES);
});

/**
 * The least of each loop's rounds: a round with a compilation or another collection does not count.
 */
function bytesPerOperation(log: string): Map<string, number> {
  const least = new Map<string, number>();
  let before = 0;
  let name: string | undefined;
  for (const line of log.split("\n")) {
    const swept = /Full sweep: \d+kb => (\d+)kb/.exec(line);
    if (swept !== null) before = Number(swept[1]);
    name = /BEGIN (\w+)/.exec(line)?.[1] ?? name;
    const collection = /START M (\d+)kb => (\w+)Collection/.exec(line);
    if (collection === null || name === undefined) continue;
    const grown = ((Number(collection[1]) - before) * 1024) / OPERATIONS;
    if (collection[2] === "Full")
      least.set(name, Math.min(grown, least.get(name) ?? Number.POSITIVE_INFINITY));
    name = undefined;
  }
  return least;
}
