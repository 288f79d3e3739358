/** Runs examples/shared-image like a user: mapped processes share the index, copies do not. */
import { expect, test } from "bun:test";
import { join } from "node:path";

const main = join(import.meta.dir, "../../examples/shared-image/main.ts");

test("shared-image takes memory once for four processes, and four times for copies", async () => {
  const example = Bun.spawn([process.execPath, main, "--mib", "64", "--requests", "40"], {
    stdout: "pipe",
    stderr: "pipe",
  });
  const [output, errors] = await Promise.all([
    new Response(example.stdout).text(),
    new Response(example.stderr).text(),
  ]);
  expect(`${errors}${await example.exited}`).toBe("0");
  expect(output.match(/40, all right/g)).toHaveLength(2);
  const pss = (how: string) => Number(new RegExp(`^${how} +(\\d+) MiB`, "m").exec(output)![1]);
  // Copies are three more, of 64 MiB each. The other memory of the processes varies.
  expect(pss("copied") - pss("mapped")).toBeGreaterThan(2 * 64);
}, 60_000);
