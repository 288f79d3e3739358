/**
 * The fuzzer for as long as CI allows. `bun bench/fuzz-threads.ts --seconds 3600` runs it longer.
 */
import { expect, test } from "bun:test";
import { runFuzz } from "./support/fuzz.ts";

const seed = Number(process.env["PGALLOC_FUZZ_SEED"] ?? Date.now() % 2 ** 31);

test("random changes of three threads, with saves, follow their models", async () => {
  console.log(`PGALLOC_FUZZ_SEED=${seed}`);
  const { steps, saves } = await runFuzz({ seed, threads: 3, runMs: 1500 });
  expect(steps).toBeGreaterThan(0);
  expect(saves).toBeGreaterThan(0);
}, 60_000);
