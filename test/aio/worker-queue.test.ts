/** Workers that die under a WorkerQueue: their operation ends with an error, and the queue goes on. */
import { afterAll, afterEach, beforeEach, describe, expect, test } from "bun:test";
import { closeSync, openSync, writeFileSync, writeSync } from "node:fs";
import { errnoNumber } from "../../ffi/index.ts";
import { createQueue, type Queue } from "../../src/aio/index.ts";
import { terminateIdleThreads } from "../../src/threads/pool.ts";
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
  readonly pipe: number;
  readonly fd: number;
}

/** A queue with one Worker, a pipe that blocks it, and a file. */
async function withQueue(body: (scene: Scene) => Promise<void>): Promise<void> {
  using directory = new TemporaryDirectory();
  using memory = new NativeMemory(4096);
  Bun.spawnSync(["mkfifo", directory.file("pipe")]);
  writeFileSync(directory.file("data"), pattern(4096));
  const pipe = openSync(directory.file("pipe"), "r+");
  const fd = openSync(directory.file("data"), "r");
  await using queue = createQueue("workers", { capacity: 4, threads: 1 });
  await body({ queue, memory, pipe, fd });
  for (const open of [pipe, fd]) closeSync(open);
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
    test("a Worker that dies inside an operation: it ends with EOWNERDEAD, the next ones are done by another Worker", async () => {
      await withQueue(async ({ queue, memory, pipe, fd }) => {
        queue.read(1, fd, memory.address, 4096, 0);
        expect(toList(await queue.waitAsync(1))).toEqual([[1, 4096]]);
        queue.read(2, pipe, memory.address, 10, 0);
        await Bun.sleep(30);
        expect(started.length).toBe(1);
        // Its thread lives until the blocking call returns, and may write to memory until then.
        started[0]!.terminate();
        queue.read(3, fd, memory.address, 4096, 0);
        expect(queue.wait(0).count).toBe(0);
        writeSync(pipe, pattern(10));
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
    });

    test("an idle Worker that dies is replaced", async () => {
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

test("a queue whose Workers all died can be destroyed", async () => {
  await withQueue(async ({ queue, memory, fd }) => {
    queue.read(1, fd, memory.address, 4096, 0);
    await queue.waitAsync(1);
    for (const worker of started) worker.terminate();
    await queue.destroy();
  });
});

test("small capacities start no more Workers than can be busy", async () => {
  using memory = new NativeMemory(4096);
  await using queue = createQueue("workers", { capacity: 1, threads: 8 });
  queue.read(1, 1_000_000, memory.address, 1, 0);
  expect(queue.wait(1).count).toBe(1);
  expect(started.length).toBe(1);
});
