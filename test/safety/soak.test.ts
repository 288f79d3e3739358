/**
 * The soak test: 20 seconds in CI, a few elsewhere, or `PGALLOC_SOAK_SECONDS`. See soak/run.ts.
 */
import { expect, test } from "bun:test";
import { describeSoak, soak } from "./soak/run.ts";

const SECONDS = Number(
  process.env["PGALLOC_SOAK_SECONDS"] ?? (process.env["CI"] === undefined ? 4 : 20),
);

test(
  `${SECONDS} seconds of allocate, fill, checkpoint, kill, restore, verify`,
  async () => {
    const totals = await soak(SECONDS, () => {});
    console.log(`    ${describeSoak(totals, SECONDS)}`);
    expect(totals.mismatches).toBe(0);
    expect(totals.kills).toBe(totals.rounds);
    expect(totals.rounds).toBeGreaterThan(SECONDS / 10);
    expect(totals.checkpoints).toBeGreaterThan(0);
  },
  SECONDS * 1000 + 60_000,
);
