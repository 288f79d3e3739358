/** Two threads change the same pages at once: every pair of transitions, stopped at every step. */
import { expect, test } from "bun:test";
import { PairRunner, POINTS, transitions } from "./support/transitions.ts";

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
