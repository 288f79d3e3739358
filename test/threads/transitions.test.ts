/**
 * Two threads change the same pages at once: pairs of transitions, the first stopped at a step.
 * PGALLOC_PAIRS_SEED replays a sample of the steps at which the second thread may have to wait;
 * `bun bench/pairs.ts` runs all pairs at all steps.
 */
import { expect, test } from "bun:test";
import { ALL_PAIRS, PairRunner, POINTS, runPairs, transitions } from "./support/transitions.ts";

const seed = Number(process.env["PGALLOC_PAIRS_SEED"] ?? Date.now() % 2 ** 31);
const SAMPLE = 40;

/** Every so-many-th pair from a place that the seed chooses: each transition is among them. */
function sampleOf(number: number) {
  const others = ALL_PAIRS.filter(({ point }) => !POINTS.includes(point));
  const step = Math.floor(others.length / SAMPLE);
  return others.filter((_, i) => i % step === number % step);
}

test("a sample of all pairs and steps leaves the file as the model says", async () => {
  console.log(`    seed ${seed}`);
  expect(await runPairs(sampleOf(seed))).toBeGreaterThan(0);
}, 60_000);

for (const first of Object.keys(transitions)) {
  test(`${first} in one thread is right beside every transition in another`, async () => {
    await using runner = new PairRunner();
    await runner.prepare();
    let stopped = 0;
    for (const point of POINTS) {
      for (const second of Object.keys(transitions)) {
        try {
          if (!(await runner.run(first, second, point))) break;
          stopped++;
        } catch (error) {
          throw new Error(`${first}, stopped at "${point}", beside ${second}`, { cause: error });
        }
      }
    }
    if (first === "release" || first === "subRelease") expect(stopped).toBeGreaterThan(0);
  }, 60_000);
}
