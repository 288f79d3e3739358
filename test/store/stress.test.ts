/**
 * Readers in Workers beside a writer; PGALLOC_STRESS_SEED replays its choices. `bun
 * bench/store-stress.ts` makes 100 million reads.
 */
import { expect, test } from "bun:test";
import { MIN_KILLS, runStress } from "./support/stress.ts";

const seed = Number(process.env["PGALLOC_STRESS_SEED"] ?? Date.now() % 2 ** 31);

test("readers in other threads see each value whole, and never an older one again", async () => {
  const report = await runStress({
    seed,
    readers: 3,
    reads: 300_000,
    runMs: 40_000,
    killEveryMs: 0,
  });
  console.log(`    seed ${seed}: ${JSON.stringify(report)}`);
  expect(report).toMatchObject({ torn: 0, backward: 0, errors: 0 });
  expect(report.reads).toBeGreaterThan(50_000);
  expect(report.writes).toBeGreaterThan(5000);
}, 60_000);

test("a writer that is terminated leaves the store whole for the next", async () => {
  const report = await runStress({
    seed,
    readers: 2,
    reads: 10_000_000,
    runMs: 3000,
    killEveryMs: 15,
  });
  console.log(`    seed ${seed}: ${JSON.stringify(report)}`);
  expect(report).toMatchObject({ torn: 0, backward: 0, errors: 0 });
  expect(report.kills).toBeGreaterThanOrEqual(MIN_KILLS);
  expect(report.recoveries).toBeGreaterThan(0);
  // Starting a Worker may take seconds on a busy machine.
}, 120_000);
