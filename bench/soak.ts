/**
 * The soak test for an hour: `bun bench/soak.ts [--seconds 3600]`. It prints its figures every
 * minute and at the end. A mismatch, a lost checkpoint or a crash ends it with an error.
 */
import { parseArgs } from "node:util";
import { describeSoak, soak } from "../test/safety/soak/run.ts";

const PROGRESS_SECONDS = 60;
const { values } = parseArgs({ options: { seconds: { type: "string", default: "3600" } } });
const seconds = Number(values.seconds);
const startedMs = performance.now();
let toldAt = 0;
const totals = await soak(seconds, (now) => {
  const elapsed = Math.round((performance.now() - startedMs) / 1000);
  if (elapsed - toldAt < PROGRESS_SECONDS) return;
  toldAt = elapsed;
  console.error(describeSoak(now, elapsed));
});
console.log(describeSoak(totals, seconds));
