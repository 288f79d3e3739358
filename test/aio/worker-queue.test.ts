/**
 * Workers that die under a WorkerQueue: their operation ends with an error, and the queue
 * continues.
 */
import { afterAll, afterEach, beforeEach, describe, expect, test } from "bun:test";
import { closeSync, openSync, writeFileSync } from "node:fs";
import { errnoNumber } from "../../ffi/index.ts";
import { createQueue, type Queue } from "../../src/aio/index.ts";
import { DestroyedError } from "../../src/index.ts";
import { terminateIdleThreads } from "../../src/threads/idle.ts";
import { PAGE_SIZE } from "../../src/pages/units.ts";
import { beginFaults } from "../safety/support/in-process.ts";
import { NativeMemory, pattern, TemporaryDirectory } from "./support/memory.ts";

const EOWNERDEAD = -errnoNumber("EOWNERDEAD");

/** Every Worker that has been started since the test began. */
const started: Worker[] = [];
const RealWorker = globalThis.Worker;

beforeEach(async () => {
  await terminateIdleThreads();
  started.length = 0;
  globalThis.Worker = class extends RealWorker {
    constructor(...args: ConstructorParameters<typeof RealWorker>) {
      super(...args);
      started.push(this);
    }
  } as typeof RealWorker;
});

afterEach(() => {
  globalThis.Worker = RealWorker;
});
afterAll(() => terminateIdleThreads());

interface Scene {
  readonly queue: Queue;
  readonly memory: NativeMemory;
  readonly fd: number;
}

/** A queue with one Worker, and a file. */
async function withQueue(body: (scene: Scene) => Promise<void>): Promise<void> {
  using directory = new TemporaryDirectory();
  using memory = new NativeMemory(4096);
  writeFileSync(directory.file("data"), pattern(4096));
  const fd = openSync(directory.file("data"), "r");
  await using queue = createQueue("workers", { capacity: 4, threads: 1 });
  await body({ queue, memory, fd });
  closeSync(fd);
}

const waits: Record<string, (queue: Queue, minCompletions: number) => Promise<[number, number][]>> =
  {
    wait: async (queue, minCompletions) => toList(queue.wait(minCompletions)),
    waitAsync: async (queue, minCompletions) => toList(await queue.waitAsync(minCompletions)),
  };

function toList({ count, ids, results }: ReturnType<Queue["wait"]>): [number, number][] {
  return Array.from({ length: count }, (_, i) => [ids[i]!, results[i]!]);
}

for (const [name, waitFor] of Object.entries(waits)) {
  describe(name, () => {
    test("wait returns EOWNERDEAD for an operation whose Worker died", async () => {
      const { faults, end } = await beginFaults();
      try {
        await withQueue(async ({ queue, memory, fd }) => {
          queue.read(1, fd, memory.address, 4096, 0);
          expect(toList(await queue.waitAsync(1))).toEqual([[1, 4096]]);
          // A read behind the end of the file that takes long.
          faults.arm({ action: "Delay", calls: ["pread"], value: 20_000, filePages: [100, 101] });
          queue.read(2, fd, memory.address, 10, 100 * PAGE_SIZE);
          while (faults.hits === 0) await Bun.sleep(1);
          expect(started.length).toBe(1);
          started[0]!.terminate();
          queue.read(3, fd, memory.address, 4096, 0);
          const results = new Map<number, number>();
          while (queue.inFlight > 0)
            for (const [id, result] of await waitFor(queue, 1)) results.set(id, result);
          expect(results).toEqual(
            new Map([
              [2, EOWNERDEAD],
              [3, 4096],
            ]),
          );
          queue.read(4, fd, memory.address, 4096, 0);
          expect(await waitFor(queue, 1)).toEqual([[4, 4096]]);
        });
      } finally {
        await end();
      }
    });

    test("the queue replaces an idle Worker that died", async () => {
      await withQueue(async ({ queue, memory, fd }) => {
        for (let round = 0; round < 3; round++) {
          queue.read(round, fd, memory.address, 4096, 0);
          expect(await waitFor(queue, 1)).toEqual([[round, 4096]]);
          started.at(-1)!.terminate();
        }
      });
    });
  });
}

test("destroy ends a queue whose Workers have all died", async () => {
  await withQueue(async ({ queue, memory, fd }) => {
    queue.read(1, fd, memory.address, 4096, 0);
    await queue.waitAsync(1);
    for (const worker of started) worker.terminate();
    await queue.destroy();
  });
});

test("destroy waits for a read that blocks, which then does not write to memory", async () => {
  const { faults, end } = await beginFaults();
  try {
    await withQueue(async ({ queue, memory, fd }) => {
      faults.arm({ action: "Delay", calls: ["pread"], value: 100 });
      queue.read(1, fd, memory.address, 4096, 0);
      const rejected = queue.waitAsync(1).catch((error: unknown) => error);
      while (faults.hits === 0) await Bun.sleep(1);
      await queue.destroy();
      expect(await rejected).toBeInstanceOf(DestroyedError);
      memory.bytes.fill(0);
      await Bun.sleep(150);
      expect(memory.bytes.every((byte) => byte === 0)).toBe(true);
    });
  } finally {
    await end();
  }
});

test("the queue starts no more Workers than its capacity can use", async () => {
  using memory = new NativeMemory(4096);
  await using queue = createQueue("workers", { capacity: 1, threads: 8 });
  queue.read(1, 1_000_000, memory.address, 1, 0);
  expect(queue.wait(1).count).toBe(1);
  expect(started.length).toBe(1);
});
