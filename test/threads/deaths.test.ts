/**
 * A thread is terminated at every step of every transition. The other threads continue, and take
 * over what it held: the lock, pages that it was releasing, claims, the part of the releaser.
 */
import { expect, test } from "bun:test";
import type { Point } from "../../src/control/interleave.ts";
import { PairRunner } from "./support/transitions.ts";

const POINTS: readonly Point[] = [
  "lock: taken",
  "attach: took a slot",
  "grow: chunks mapped",
  "release: began",
  "release: decommitted",
  "release: sub-released",
  "releaser: found no waste",
  "drop: claimed",
  "wait: looked at the bits",
];

for (const action of ["allocate", "subRelease", "recycle", "decommit", "cancel"]) {
  test(`a thread may be terminated at any step of ${action}`, async () => {
    let ended = 0;
    for (const point of POINTS) {
      await using runner = new PairRunner();
      await runner.prepare();
      try {
        if (await runner.runDeath(action, point)) ended++;
      } catch (error) {
        throw new Error(`${action}, ended at "${point}"`, { cause: error });
      }
    }
    expect(ended).toBeGreaterThan(0);
  }, 60_000);
}
