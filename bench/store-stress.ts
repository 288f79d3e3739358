/**
 * Readers of a store beside a writer: `bun bench/store-stress.ts [--reads 100000000] [--readers 2]
 * [--seed N]`, first undisturbed, then with the writer terminated at random points. A torn value,
 * an older one after a newer one, or an error makes it exit with 1.
 */
import { parseArgs } from "node:util";
import { runStress } from "../test/store/support/stress.ts";

const { values } = parseArgs({
  options: {
    reads: { type: "string", default: "100000000" },
    readers: { type: "string", default: "2" },
    seconds: { type: "string", default: "3600" },
    seed: { type: "string", default: String(Date.now() % 2 ** 31) },
  },
});
const seed = Number(values.seed);
let failed = false;
for (const killEveryMs of [0, 20]) {
  const report = await runStress({
    seed,
    readers: Number(values.readers),
    reads: Number(values.reads),
    runMs: 1000 * Number(values.seconds),
    killEveryMs,
  });
  console.log(`seed ${seed}: ${JSON.stringify(report)}`);
  failed ||= report.torn + report.backward + report.errors > 0;
}
process.exit(failed ? 1 : 0);
