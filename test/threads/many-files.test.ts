/** Many files leave nothing behind. */
import { expect, test } from "bun:test";
import { join } from "node:path";

test("10,000 files made and destroyed leave no waiter, no descriptor and no memory behind", () => {
  const program = join(import.meta.dir, "support/many-files.ts");
  const { exitCode, stdout, stderr } = Bun.spawnSync([process.execPath, program], {
    stderr: "pipe",
  });
  expect({ exitCode, stderr: stderr.toString() }).toEqual({ exitCode: 0, stderr: "" });
  const { bytes, ...left } = JSON.parse(stdout.toString()) as {
    bytes: number;
    descriptors: number;
    mappings: number;
  };
  expect(left).toEqual({ descriptors: 0, mappings: 0 });
  // A leak would be a control block (4 KiB) and a waiter a file: 40 MB and more.
  expect(bytes).toBeLessThan(24 * 2 ** 20);
});
