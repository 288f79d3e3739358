/** Many threads that write to and stop several files at once, while some are terminated. */
import { expect, test } from "bun:test";
import { MemoryFile, PAGE_SIZE } from "../../src/index.ts";
import { StressWord } from "./support/stress-words.ts";

const PAGES = 24;

test("threads that stop each other's files and die leave every turn of a stop whole", async () => {
  const files = Array.from({ length: 3 }, () => MemoryFile.create());
  for (const file of files) file.view(file.allocate(PAGES * PAGE_SIZE)).fill(0);
  const handles = files.map((file) => file.share());
  const words = new Int32Array(new SharedArrayBuffer(32));
  let seeds = 0;
  const start = async (): Promise<Worker> => {
    const worker = new Worker(new URL("./support/stress-worker.ts", import.meta.url));
    const up = new Promise((resolve, reject) => {
      worker.addEventListener("message", resolve, { once: true });
      worker.addEventListener("error", (event) => reject(event.error ?? event), { once: true });
    });
    worker.postMessage({ handles, words, seed: ++seeds, pages: PAGES });
    await up;
    return worker;
  };
  const living = new Set(await Promise.all([start(), start(), start(), start()]));
  for (let round = 0; round < 12; round++) {
    const before = Atomics.load(words, StressWord.Stops);
    while (Atomics.load(words, StressWord.Stops) < before + 20) await Bun.sleep(1);
    const [oldest] = living;
    living.delete(oldest!);
    // At any point: a turn that death cut is not an error of a stop, so its words are not compared.
    oldest!.terminate();
    living.add(await start());
  }
  Atomics.store(words, StressWord.Over, 1);
  await Promise.all(
    [...living].map(
      (worker) =>
        new Promise((resolve) => worker.addEventListener("message", resolve, { once: true })),
    ),
  );
  expect(Atomics.load(words, StressWord.Broken)).toBe(0);
  expect(Atomics.load(words, StressWord.Timeouts)).toBe(0);
  expect(Atomics.load(words, StressWord.Writes)).toBeGreaterThan(100);
  for (const worker of living) worker.terminate();
  for (const file of files) file.destroy();
}, 60_000);
