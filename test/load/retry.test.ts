/** retryLoad right after an abort: the threads of the stopped run may not all have left yet. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MemoryFile } from "../../src/index.ts";
import { terminateIdleThreads } from "../../src/threads/idle.ts";

const LENGTH_BYTES = 64 * 2 ** 20;
const whole = { start: 0, end: LENGTH_BYTES };
let directory: string;

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), "pgalloc-retry-"));
  using file = MemoryFile.create();
  file.view(file.allocate(LENGTH_BYTES)).fill(7);
  await file.saveTo(directory);
});
afterAll(async () => {
  rmSync(directory, { recursive: true });
  await terminateIdleThreads();
});

test.each(["auto", "workers", "inline"] as const)(
  "retryLoad continues a load of the queue %s that was aborted just before",
  async (queue) => {
    for (let round = 0; round < 20; round++) {
      const controller = new AbortController();
      const { signal } = controller;
      using file = await MemoryFile.loadFrom(directory, { background: true, signal, queue });
      while (file.loadStats().loadedBytes === 0) await Bun.sleep(0);
      controller.abort();
      // Twice, as two parts of a program may.
      await Promise.all([file.retryLoad(), file.retryLoad()]);
      expect(file.isLoaded(whole)).toBe(true);
      expect(file.view(whole).at(-1)).toBe(7);
    }
  },
  60_000,
);
