/** Runs examples/larger-than-memory like a user, where a limited cgroup can be made. */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { makeLimitedCgroup } from "../../examples/cache/limited-cgroup.ts";

const main = join(import.meta.dir, "../../examples/larger-than-memory/main.ts");

const cgroup = makeLimitedCgroup(64 * 2 ** 20);
const canLimit = "path" in cgroup;
if (canLimit) await cgroup.remove();

test.skipIf(!canLimit)(
  "larger-than-memory reads all of a mapped index, and cannot copy it",
  async () => {
    const example = Bun.spawn([process.execPath, main, "--mib", "256", "--limit-mib", "128"], {
      stdout: "pipe",
      stderr: "pipe",
    });
    const output = await new Response(example.stdout).text();
    const errors = await new Response(example.stderr).text();
    expect(`${errors}${await example.exited}`).toBe("0");
    expect(output).toContain("copied  ended by the kernel: out of memory");
    const mapped = /^mapped {2}all entries are right; (\d+) MiB are mapped at the end$/m.exec(
      output,
    );
    // Half of the index is all that there was room for.
    expect(Number(mapped![1])).toBeLessThan(128);
  },
  60_000,
);
