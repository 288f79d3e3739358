/**
 * Ends a Worker at every step of every public call (test/safety/support/endings.ts).
 *
 *     bun bench/endings.ts [CALL ...]
 *
 * A step after which other threads cannot go on is named, and the exit code is 1.
 */
import { Endings } from "../test/safety/support/endings.ts";
import { publicCalls } from "../test/safety/support/public-calls.ts";

const names = process.argv.length > 2 ? process.argv.slice(2) : Object.keys(publicCalls);
let failures = 0;
for (const name of names) {
  using endings = await Endings.begin();
  let step = 0;
  for (let isEnded = true; isEnded; step++) {
    try {
      isEnded = await endings.end(name, step);
    } catch (error) {
      failures++;
      console.error(`${name}, ended at step ${step}:`, error);
    }
  }
  console.log(`${name}: ended at ${step - 1} steps`);
}
process.exit(failures === 0 ? 0 : 1);
