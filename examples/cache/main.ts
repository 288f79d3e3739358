/**
 * A cache that gives memory back when the host asks.
 *
 *   bun main.ts [--limit-mib 256] [--no-cgroup] [--entries 128] [--neighbour-mib 256]
 *               [--wait-seconds 30]
 *
 * It makes a cgroup with little memory, and starts in it the program with the cache (program.ts)
 * and a neighbour that needs the memory: real pressure, reported by the kernel. If it cannot make
 * such a cgroup, it prints the reason and starts evictions by hand. Making cgroups usually needs
 * root.
 */
import { join } from "node:path";
import { parseArgs } from "node:util";
import { makeLimitedCgroup } from "./limited-cgroup.ts";

const { values } = parseArgs({
  options: {
    "limit-mib": { type: "string", default: "256" },
    "no-cgroup": { type: "boolean", default: false },
    entries: { type: "string", default: "128" },
    "neighbour-mib": { type: "string", default: "256" },
    "wait-seconds": { type: "string", default: "30" },
  },
});
const limitMebibytes = Number(values["limit-mib"]);

const cgroup = values["no-cgroup"]
  ? { reasons: ["not wanted"] }
  : makeLimitedCgroup(limitMebibytes * 2 ** 20);
const command = [process.execPath, join(import.meta.dir, "program.ts")];
for (const name of ["entries", "neighbour-mib", "wait-seconds"] as const)
  command.push(`--${name}`, values[name]);
if ("path" in cgroup) {
  console.log(
    `cgroup               ${cgroup.path} (version ${cgroup.version}), limited to ` +
      `${limitMebibytes} MiB`,
  );
  command.push("--processes-file", cgroup.processesFile);
} else {
  console.log(`no limited cgroup    ${cgroup.reasons.join("; ")}`);
}
const program = Bun.spawn(command, { stdout: "inherit", stderr: "inherit" });
// Remove the cgroup in any case, after its processes.
for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => program.kill());
const exitCode = await program.exited;
if ("path" in cgroup) await cgroup.remove();
process.exit(exitCode);
