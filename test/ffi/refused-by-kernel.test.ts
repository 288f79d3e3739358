/**
 * The same as optional-calls.test.ts in all threads of a process: strace makes the kernel refuse
 * the calls.
 */
import { expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const CALLS =
  "madvise,flock,fsetxattr,fgetxattr,sched_setattr,sched_getattr,userfaultfd,io_uring_setup," +
  "mincore,msync";

test.skipIf(Bun.which("strace") === null)(
  "a program works in a process in which the kernel refuses optional calls",
  () => {
    const root = mkdtempSync(join(tmpdir(), "pgalloc-refused-"));
    const index = join(import.meta.dir, "../../src/index.ts");
    const program = `
      const { MemoryFile } = await import(${JSON.stringify(index)});
      const file = MemoryFile.create({ path: ${JSON.stringify(join(root, "memory"))} });
      const range = file.allocate(64 << 20, { mode: "writePopulate" });
      file.view(range).fill(7);
      await file.saveTo(${JSON.stringify(join(root, "checkpoint"))});
      const back = await MemoryFile.loadFrom(${JSON.stringify(join(root, "checkpoint"))}, {
        background: true,
      });
      await back.awaitLoad();
      const view = back.view(range);
      const mapped = await MemoryFile.loadFrom(${JSON.stringify(join(root, "checkpoint"))}, {
        mapped: true,
      });
      if (mapped.view(range).at(-1) !== 7) throw new Error("mapped");
      console.log(view[0], view.at(-1), back.loadStats().queue);
      process.exit(0);`;
    try {
      const { stdout, stderr } = Bun.spawnSync([
        ...["strace", "-f", "-qq", "-o", join(root, "log")],
        ...["-e", `trace=${CALLS}`, "-e", `inject=${CALLS}:error=EPERM`],
        ...[process.execPath, "-e", program],
      ]);
      expect(`${stdout}${stderr}`).toBe("7 7 workers\n");
    } finally {
      rmSync(root, { recursive: true });
    }
  },
  30_000,
);
