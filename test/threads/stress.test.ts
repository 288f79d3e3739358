/**
 * The stress run at a length that CI allows. PGALLOC_STRESS_SECONDS makes it longer,
 * PGALLOC_STRESS_SEED replays its choices. `bun bench/stress.ts` runs it for a minute and prints
 * its figures.
 */
import { expect, test } from "bun:test";
import { OPERATIONS_MIN, runStress } from "./support/stress.ts";

const seconds = Number(process.env["PGALLOC_STRESS_SECONDS"] ?? 2);
const seed = Number(process.env["PGALLOC_STRESS_SEED"] ?? Date.now() % 2 ** 31);

for (const killEveryMs of [0, 40]) {
  const how = killEveryMs === 0 ? "none of them is terminated" : "some are terminated anywhere";
  test(
    `8 Workers in one file while it loads, ${how}: no page has two owners, no wait is for ever, ` +
      "all is free in the end",
    async () => {
      const report = await runStress({
        seed,
        threads: 8,
        runMs: 1000 * seconds,
        killEveryMs,
        restoredPages: 16_384,
      });
      const { operations, threadsTerminated, pagesOfTheDead, errors, strays } = report;
      console.log(
        `    seed ${seed}: ${operations} operations, ${threadsTerminated} threads terminated ` +
          `with ${pagesOfTheDead} pages`,
      );
      expect({ errors, strays }).toEqual({ errors: [], strays: [] });
      expect(operations).toBeGreaterThanOrEqual(OPERATIONS_MIN);
      if (killEveryMs > 0) expect(threadsTerminated).toBeGreaterThan(3);
    },
    60_000 + 2000 * seconds,
  );
}
