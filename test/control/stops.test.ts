/**
 * Stops of real threads: which threads stop, what they may still do, and which deaths a stop
 * survives.
 */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { isThreadAlive } from "../../src/threads/thread.ts";
import {
  FileRange,
  MemoryFile,
  PAGE_SIZE,
  ReadOnlyError,
  StopTimeoutError,
} from "../../src/index.ts";
import { coreOf } from "../../src/file/memory-file.ts";
import { Word } from "../../src/control/control.ts";
import { stopAll, StopsWord, StopsWorker, type WorkerMode } from "./support/stops-words.ts";

let file: MemoryFile;
let pages: FileRange[];
const workers: StopsWorker[] = [];

beforeEach(() => {
  file = MemoryFile.create();
  pages = Array.from({ length: 16 }, () => file.allocate(PAGE_SIZE));
});
afterEach(async () => {
  await Promise.all(workers.splice(0).map((worker) => worker.terminate()));
  file.destroy();
});

async function start(mode: WorkerMode, index = 0): Promise<StopsWorker> {
  const worker = new StopsWorker();
  workers.push(worker);
  return await worker.start(file, mode, pages, index);
}

/**
 * The numbers that worker `index` wrote to its pages. They are all the same unless a turn was cut.
 */
const numbersOf = (index: number): Set<number> =>
  new Set(pages.map((page) => file.view(page, Int32Array)[index]!));

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await Bun.sleep(1);
}

function failureOf(work: () => unknown): unknown {
  try {
    work();
  } catch (error) {
    return error;
  }
  throw new Error("Expected it to fail");
}

describe("whileStopped", () => {
  test("runs the work of a file without handles, and stops no thread", () => {
    const { value, pauseMs } = stopAll(file, () => 7);
    expect(value).toBe(7);
    expect(pauseMs).toBeGreaterThanOrEqual(0);
  });

  test.each(["turns", "safepoints"] as const)(
    "stops threads that write in %s between two invariants, and lets them continue",
    async (mode) => {
      const writers = await Promise.all([0, 1, 2, 3].map((index) => start(mode, index)));
      await until(() => writers.every(({ writes }) => writes > 0));
      for (let round = 0; round < 30; round++) {
        const before = writers.map(({ writes }) => writes);
        stopAll(file, () => {
          const written = writers.map(({ writes }) => writes);
          for (const [index] of writers.entries())
            expect([...numbersOf(index)]).toEqual([written[index]!]);
          expect(writers.map(({ writes }) => writes)).toEqual(written);
        });
        await until(() => writers.every(({ writes }, i) => writes > before[i]!));
      }
    },
  );

  test("does not stop a thread that only reads, and stops one that is idle", async () => {
    const [reader] = await Promise.all([start("readOnly"), start("idle")]);
    stopAll(file, () => {
      const before = reader!.progress;
      while (reader!.progress === before);
    });
  });

  test("does not wait for a parked thread, which stops when it comes back", async () => {
    const parked = await start("parked");
    await Bun.sleep(20);
    stopAll(file, () => {
      parked.end();
      Bun.sleepSync(50);
      expect(parked.progress).toBe(0);
    });
    await until(() => Atomics.load(parked.words, StopsWord.Left) === 1);
  });

  test("fails with the ids of threads that did not stop, and the others continue", async () => {
    const [stuck, other] = await Promise.all([start("stuck"), start("turns", 1)]);
    let ran = false;
    const error = failureOf(() =>
      stopAll(
        file,
        () => {
          ran = true;
        },
        { timeoutMs: 50 },
      ),
    );
    expect(error).toBeInstanceOf(StopTimeoutError);
    const { code, threadIds, timeoutMs, message } = error as StopTimeoutError;
    expect({ code, timeoutMs, ran }).toEqual({
      code: "ERR_STOP_TIMEOUT",
      timeoutMs: 50,
      ran: false,
    });
    expect(threadIds).toHaveLength(1);
    expect(message).toContain(`Thread ${threadIds[0]} did not stop within 50 ms`);
    const before = other!.writes;
    await until(() => other!.writes > before);
    stuck!.end();
    await stuck!.terminate();
    expect(stopAll(file, () => 1).value).toBe(1);
  });

  test("does not wait for a thread that died while it ran", async () => {
    const stuck = await start("stuck");
    setTimeout(() => undefined, 0);
    stuck.worker.terminate();
    await stuck.closed;
    expect(stopAll(file, () => 2).value).toBe(2);
  });

  test("lets threads continue when the work throws", async () => {
    const writer = await start("turns");
    expect(() =>
      stopAll(file, () => {
        throw new Error("from the work");
      }),
    ).toThrow("from the work");
    const before = writer.writes;
    await until(() => writer.writes > before);
  });

  test("makes a thread that attaches meanwhile wait until the stop is over", async () => {
    await start("turns");
    const late = new StopsWorker();
    workers.push(late);
    let started: Promise<unknown> | undefined;
    stopAll(file, () => {
      started = late.start(file, "turns", pages, 5);
      Bun.sleepSync(100);
      expect(Atomics.load(late.words, StopsWord.Up)).toBe(0);
    });
    await started;
  });

  test("of a thread that died is ended by the threads that it stopped", async () => {
    const writer = await start("turns");
    await until(() => writer.writes > 0);
    const dead = await start("idle");
    const { words } = coreOf(file);
    dead.worker.terminate();
    await dead.closed;
    const deadThread = deadThreadOf(words);
    Atomics.store(words, Word.Stop, deadThread);
    Atomics.notify(words, Word.Destroyed);
    const before = writer.writes;
    await until(() => writer.writes > before + 100);
    expect(Atomics.load(words, Word.Stop)).toBe(0);
  });

  test("is not repeated by a safepoint in its own work", async () => {
    await start("turns");
    stopAll(file, () => file.safepoint());
  });
});

/** The word of a participant that has died. */
function deadThreadOf(words: Int32Array): number {
  for (let word = Word.Participants; word < words.length; word++) {
    const thread = words[word]!;
    if (thread > 2 ** 22 && !isThreadAlive(thread)) return thread;
  }
  throw new Error("No dead participant");
}

describe("a thread that attached with readOnly", () => {
  test("gets a ReadOnlyError from methods that change the file, and can view it", async () => {
    const handle = file.share();
    const library = JSON.stringify(new URL("../../src/index.ts", import.meta.url).pathname);
    const script = `
      import { MemoryFile } from ${library};
      self.onmessage = ({ data }) => {
        const file = MemoryFile.attach(data.handle, { readOnly: true });
        const codes = ["allocate", "incRef", "decRef", "decommit"].map((method) => {
          try { file[method](4096); } catch (error) { return error.code; }
        });
        postMessage({ codes, first: file.view(data.range)[0], name: file.share().name });
      };`;
    file.view(pages[0]!)[0] = 9;
    const url = URL.createObjectURL(new Blob([script], { type: "application/typescript" }));
    const worker = new Worker(url);
    const answer = new Promise<MessageEvent>((resolve, reject) => {
      worker.onmessage = resolve;
      worker.onerror = reject;
    });
    const { start: from, end } = pages[0]!;
    worker.postMessage({ handle, range: { start: from, end } });
    expect((await answer).data).toEqual({
      codes: Array.from({ length: 4 }, () => new ReadOnlyError("", "").code),
      first: 9,
      name: file.name,
    });
    worker.terminate();
  });
});

describe("parked", () => {
  test("returns the result of the work, throws its error, and may be nested", () => {
    file.share();
    expect(file.parked(() => file.parked(() => 3))).toBe(3);
    expect(() =>
      file.parked(() => {
        throw new Error("from the work");
      }),
    ).toThrow("from the work");
    expect(() => file.parked(undefined as never)).toThrow(TypeError);
    file.view(new FileRange(0, PAGE_SIZE)).fill(1);
  });
});
