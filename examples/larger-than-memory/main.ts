/**
 * An index that is larger than the memory that a process may have. Needs root, for a cgroup.
 *
 *   sudo bun main.ts [--mib 512] [--limit-mib 256]
 *
 * Copied, the index needs more than the limit, and the kernel ends the process. Mapped, its pages
 * are the page cache's: the kernel drops those that were not used for long, and reads them again
 * from the disk when they are used. Pages that are written become copies, which count as memory.
 */
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { makeLimitedCgroup } from "../cache/limited-cgroup.ts";
import { ENTRY_BYTES, fillIndex } from "../shared-image/index-file.ts";

const MIB = 2 ** 20;
const { values } = parseArgs({
  options: {
    mib: { type: "string", default: "512" },
    "limit-mib": { type: "string", default: "256" },
  },
});
const bytes = Number(values.mib) * MIB;

const directory = mkdtempSync(join(tmpdir(), "pgalloc-larger-"));
try {
  await fillIndex(directory, bytes);
  console.log(`index   ${values.mib} MiB, memory limit ${values["limit-mib"]} MiB`);
  for (const how of ["copied", "mapped"]) {
    // A cached page counts for the cgroup that has read it first, and this process is in another.
    for (const name of readdirSync(directory))
      Bun.spawnSync(["dd", `if=${join(directory, name)}`, "iflag=nocache", "count=0"]);
    console.log(`${how}  ${await read(how)}`);
  }
} finally {
  rmSync(directory, { recursive: true });
}

/** Reads the index in a process with the memory limit. Returns what became of it. */
async function read(how: string): Promise<string> {
  const cgroup = makeLimitedCgroup(Number(values["limit-mib"]) * MIB);
  if (!("path" in cgroup)) throw new Error(`No cgroup can be made: ${cgroup.reasons.join("; ")}`);
  const reader = join(import.meta.dir, "reader.ts");
  const program = [process.execPath, reader, directory, how, `${bytes / ENTRY_BYTES}`];
  const enter = 'echo $$ > "$0" && exec "$@"';
  const child = Bun.spawn(["sh", "-c", enter, cgroup.processesFile, ...program], {
    stdout: "pipe",
    stderr: "inherit",
  });
  const output = await new Response(child.stdout).text();
  await child.exited;
  await cgroup.remove();
  if (child.signalCode === "SIGKILL") return "ended by the kernel: out of memory";
  if (child.exitCode !== 0) throw new Error(`The reader ended with ${child.exitCode}`);
  return `all entries are right; ${output.trim()}`;
}
