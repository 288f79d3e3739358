/**
 * Runs every pair of page transitions in two threads, the first one stopped at each of its steps
 * (test/threads/support/transitions.ts).
 *
 *     bun bench/pairs.ts [--rounds 1]
 *
 * A pair that fails is named, and the exit code is 1.
 */
import { parseArgs } from "node:util";
import { ALL_PAIRS, runPairs } from "../test/threads/support/transitions.ts";

const { values } = parseArgs({ options: { rounds: { type: "string", default: "1" } } });
let stopped = 0;
for (let round = 0; round < Number(values.rounds); round++) {
  try {
    stopped += await runPairs(ALL_PAIRS);
  } catch (error) {
    console.error(error);
    process.exit(1);
  }
}
console.log(`${ALL_PAIRS.length} pairs and steps, ${values.rounds} times: ${stopped} were stopped`);
process.exit(0);
