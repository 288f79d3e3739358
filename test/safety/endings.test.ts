/**
 * A Worker ends in the middle of a public call, and the other threads go on: nothing that it held
 * stays locked. PGALLOC_ENDINGS_SEED replays a run; `bun bench/endings.ts` tries every step.
 */
import { expect, test } from "bun:test";
import { Endings } from "./support/endings.ts";
import { publicCalls } from "./support/public-calls.ts";

const seed = Number(process.env["PGALLOC_ENDINGS_SEED"] ?? Date.now() % 2 ** 31);

test("a public call may end its thread at any step", async () => {
  console.log(`    seed ${seed}`);
  using endings = await Endings.begin();
  let ended = 0;
  for (const name of Object.keys(publicCalls)) {
    const step = seed % (await endings.count(name));
    try {
      if (await endings.end(name, step)) ended++;
    } catch (error) {
      throw new Error(`${name}, ended at step ${step}`, { cause: error });
    }
  }
  expect(ended).toBeGreaterThan(0);
}, 60_000);
