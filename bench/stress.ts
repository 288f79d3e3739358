/**
 * The stress run for a minute, first undisturbed, then with threads terminated at random points:
 * `bun bench/stress.ts [--seconds 60] [--threads 8] [--seed N]`. It prints its figures. A page with
 * two owners, a leak or an endless wait makes it exit with 1 (the last after twice the time).
 */
import { parseArgs } from "node:util";
import { runStress } from "../test/threads/support/stress.ts";

const { values } = parseArgs({
  options: {
    seconds: { type: "string", default: "60" },
    threads: { type: "string", default: "8" },
    seed: { type: "string", default: String(Date.now() % 2 ** 31) },
  },
});
const seconds = Number(values.seconds);
const threads = Number(values.threads);
const seed = Number(values.seed);
let failed = false;
for (const killEveryMs of [0, 100]) {
  const limit = setTimeout(
    () => {
      console.error(`seed ${seed}: not over after ${2 * seconds + 30} s: a wake-up was lost`);
      process.exit(1);
    },
    1000 * (2 * seconds + 30),
  );
  const report = await runStress({
    seed,
    threads,
    runMs: 1000 * seconds,
    killEveryMs,
    restoredPages: 131_072,
  });
  clearTimeout(limit);
  const { operations, threadsStarted, threadsTerminated, pagesOfTheDead, errors, strays } = report;
  console.log(
    `seed ${seed}: ${operations} operations in ${seconds} s by ${threads} threads at a time, ` +
      `${threadsStarted} in all, ` +
      `${threadsTerminated} terminated with ${pagesOfTheDead} pages; ${errors.length} errors, ` +
      `${strays.length} stray runs`,
  );
  for (const line of [...errors, ...strays]) console.error(line);
  failed ||= errors.length + strays.length > 0;
}
// Workers that are done still keep the process alive.
process.exit(failed ? 1 : 0);
