/** The programs whose figures are in the README, at smoke size, so that they keep working. */
import { expect, test } from "bun:test";
import { join } from "node:path";

const root = join(import.meta.dir, "../..");

test.each([
  [
    ["bench/kills.ts", "--kills", "3"],
    /^\d+ saves of 4096 pages, 3 of them killed: \d+ left the previous checkpoint, \d+ the new one/,
  ],
  [["bench/hostile.ts", "--cases", "200"], /^200 hostile checkpoints: \d+ refused as corrupt/],
  [["bench/soak.ts", "--seconds", "1"], /^1 s: \d+ rounds, \d+ kills, .* 0 mismatches\n$/],
] as [string[], RegExp][])("%j prints its figure", async (args, figure) => {
  const child = Bun.spawn([process.execPath, ...args], {
    cwd: root,
    stdout: "pipe",
    stderr: "pipe",
  });
  const [stdout, stderr, exitCode] = await Promise.all([
    child.stdout.text(),
    child.stderr.text(),
    child.exited,
  ]);
  if (exitCode !== 0) throw new Error(stderr);
  expect(stdout).toMatch(figure);
});
