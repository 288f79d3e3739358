/**
 * The map of data.bench.ts in two threads: two that get entries, or one that gets them beside one
 * that replaces them all the time, 100 in a transaction. "nsPerGet" is the time of one get in a
 * thread that reads. A Map of JavaScript is not here: threads cannot share it.
 */
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import { fill, removeMap } from "./data.bench.ts";
import type { MapTask } from "./peers/map-thread.ts";
import { hasLmdb, type KeyKind, openMap } from "./peers/maps.ts";
import {
  type Bench,
  main,
  number,
  type Params,
  type Run,
  type Sample,
  text,
} from "./support/bench.ts";

export const bench: Bench = {
  subject: "data-threads",
  title: "map in two threads",
  cases: ({ isSmoke }) => {
    if (isSmoke) return [{ entries: 500, key: "u32", threads: "reader and writer" }];
    return ["reader and reader", "reader and writer"].map((threads) => ({
      entries: 1_000_000,
      key: "string",
      threads,
    }));
  },
  rivals: () => [...(hasLmdb() ? ["lmdb"] : []), "sqlite"],
  measure: sample,
};

async function sample(params: Params, { by, directory: parent }: Run): Promise<Sample> {
  const entries = number(params, "entries");
  const kind = text(params, "key") as KeyKind;
  const roles = text(params, "threads").split(" and ") as MapTask["role"][];
  const directory = join(parent, `map-${by}-${process.pid}`);
  const map = await openMap(by, directory, kind);
  try {
    fill(map, entries, kind);
    const words = new Int32Array(new SharedArrayBuffer(8));
    const workers = roles.map((role) => {
      const task: MapTask = { by, shared: map.share!(), kind, entries, role, words };
      return new Worker(new URL("./peers/map-thread.ts", import.meta.url), { workerData: task });
    });
    await Promise.all(workers.map(nextMessage));
    const results = Promise.all(workers.map(nextMessage));
    Atomics.store(words, 0, 1);
    Atomics.notify(words, 0);
    const [first, second] = (await results) as [number, number];
    await Promise.all(workers.map((worker) => worker.terminate()));
    await map.close();
    const figures: Record<string, number> =
      roles[1] === "reader"
        ? { nsPerGet: (first + second) / 2 }
        : { nsPerGet: first, nsPerReplace: second };
    return { figures, hash: `${entries}` };
  } finally {
    removeMap(directory);
  }
}

const nextMessage = (worker: Worker): Promise<unknown> =>
  new Promise((resolve, reject) => {
    worker.once("message", resolve);
    worker.once("error", reject);
  });

if (import.meta.main) await main(bench);
