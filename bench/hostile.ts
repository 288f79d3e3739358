/**
 * Counts the outcomes of hostile checkpoints: `bun bench/hostile.ts [--cases 100000]`. Half of them
 * are in each format. They run in processes of some thousands, each with its own seed. A crash, an
 * unexpected error or a byte in the wrong place ends the run.
 */
import { join } from "node:path";
import { parseArgs } from "node:util";

const program = join(import.meta.dir, "../test/safety/hostile/program.ts");
const CASES_PER_PROCESS = 5000;

const { values } = parseArgs({
  options: { cases: { type: "string", default: "100000" }, seed: { type: "string", default: "1" } },
});
const casesPerFormat = Math.ceil(Number(values.cases) / 2);
const total: Record<string, number> = {};
let seed = Number(values.seed);
for (const format of ["native", "gvisor"]) {
  for (let left = casesPerFormat; left > 0; left -= CASES_PER_PROCESS) {
    const args = [format, String(Math.min(left, CASES_PER_PROCESS)), String(seed++)];
    const child = Bun.spawn([process.execPath, program, ...args], {
      stdout: "pipe",
      stderr: "inherit",
    });
    const output = await child.stdout.text();
    if ((await child.exited) !== 0)
      throw new Error(`Cases ${args.join(" ")} ended with ${child.signalCode ?? child.exitCode}`);
    for (const [name, count] of Object.entries(JSON.parse(output) as Record<string, number>)) {
      total[name] =
        name === "grownMiB" ? Math.max(total[name] ?? 0, count) : (total[name] ?? 0) + count;
    }
    console.error(`${format}, seed ${args[2]}: ${output.trim()}`);
  }
}
const { cases, refused, overLimit, damagedPages, taken, grownMiB } = total;
console.log(
  `${cases} hostile checkpoints: ${refused} refused as corrupt, ${overLimit} over limitBytes, ` +
    `${damagedPages} with pages that ` +
    `are not handed out, ${taken} good to use; no crash, no foreign byte written, at most ` +
    `${grownMiB} MiB more memory`,
);
