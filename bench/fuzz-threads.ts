/**
 * Runs the differential fuzzer (test/threads/support/fuzz.ts) round after round.
 *
 *     bun bench/fuzz-threads.ts [--seconds 60] [--threads 3] [--seed N]
 *
 * Each round has a seed of its own; a round that fails prints it, and the exit code is 1.
 */
import { parseArgs } from "node:util";
import { runFuzz } from "../test/threads/support/fuzz.ts";

const { values } = parseArgs({
  options: {
    seconds: { type: "string", default: "60" },
    threads: { type: "string", default: "3" },
    seed: { type: "string", default: String(Date.now() % 2 ** 31) },
  },
});
const threads = Number(values.threads);
const until = performance.now() + 1000 * Number(values.seconds);
let [rounds, steps, saves] = [0, 0, 0];
const first = Number(values.seed);
for (let seed = first; performance.now() < until; seed++) {
  try {
    const result = await runFuzz({ seed, threads, runMs: 5000 });
    rounds++;
    steps += result.steps;
    saves += result.saves;
  } catch (error) {
    console.error(`Round with --seed ${seed} --threads ${threads} failed:`, error);
    process.exit(1);
  }
}
const done = `${steps} steps of ${threads} threads, ${saves} saves loaded`;
console.log(`${rounds} rounds from --seed ${first}: ${done}`);
process.exit(0);
