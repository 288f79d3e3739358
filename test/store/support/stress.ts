/** Readers and a writer in Workers over one store, the writer is sometimes terminated. */
import { Worker } from "node:worker_threads";
import { Store } from "../../../src/data/index.ts";
import {
  countTornRows,
  HANDLES,
  RUN_WORDS,
  RunWord,
  randomOf,
  stampOf,
  stampTable,
} from "./stamps.ts";
import { arenaOf, temporaryDirectory } from "./support.ts";

export interface StressOptions {
  readonly seed: number;
  readonly readers: number;
  /** It ends when there were so many reads, or after so long. */
  readonly reads: number;
  readonly runMs: number;
  /** 0: never. */
  readonly killEveryMs: number;
}

export interface StressReport {
  readonly reads: number;
  readonly writes: number;
  readonly torn: number;
  readonly backward: number;
  readonly errors: number;
  readonly kills: number;
  /** Of the kills, those in the middle of an operation. */
  readonly recoveries: number;
}

/** A run is not over before. */
const MIN_WRITES = 10_000;
export const MIN_KILLS = 3;
/** On a busy machine a run may take so many times as long. */
const LATE = 8;

const source = new URL("./stamp-worker.ts", import.meta.url);

async function start(role: string, run: unknown): Promise<Worker> {
  const worker = new Worker(source, { workerData: { role, run } });
  await new Promise((resolve, reject) => {
    worker.once("message", resolve);
    worker.once("error", reject);
  });
  return worker;
}

const ended = (worker: Worker) => new Promise((resolve) => worker.once("exit", resolve));

export async function runStress(options: StressOptions): Promise<StressReport> {
  const directory = temporaryDirectory();
  const store = await Store.open(directory.path, { create: true });
  const map = store.map("stamps");
  const words = new Int32Array(new SharedArrayBuffer(4 * RUN_WORDS));
  const handles = new Float64Array(new SharedArrayBuffer(8 * HANDLES)).fill(-1);
  const table = stampTable(store);
  store.map("waves");
  const handle = store.share();
  const random = randomOf(options.seed);
  const next = () => ({ store: handle, words, handles, seed: random(2 ** 31) });
  const readers = await Promise.all(
    Array.from({ length: options.readers }, () => start("reader", next())),
  );
  let writer = await start("writer", next());
  let kills = 0;
  let recoveries = 0;
  let reads = 0;
  const arena = arenaOf(store) as unknown as { recover: () => void };
  const { recover } = arena;
  arena.recover = () => {
    recoveries++;
    recover.call(arena);
  };
  const isOver = (ms: number) => {
    const isKillingStill = options.killEveryMs > 0 && (kills < MIN_KILLS || recoveries === 0);
    return ms >= (isKillingStill ? LATE * options.runMs : options.runMs);
  };
  for (const began = performance.now(); !isOver(performance.now() - began); ) {
    await Bun.sleep(options.killEveryMs === 0 ? 20 : 1 + random(2 * options.killEveryMs));
    const first = Atomics.load(words, RunWord.Writes);
    while (options.killEveryMs > 0 && Atomics.load(words, RunWord.Writes) < first + 100)
      await Bun.sleep(1);
    reads += Atomics.exchange(words, RunWord.Reads, 0);
    if (reads >= options.reads && Atomics.load(words, RunWord.Writes) > MIN_WRITES) break;
    if (options.killEveryMs === 0) continue;
    await writer.terminate();
    kills++;
    // This thread finds the dead one's lock, and undoes what it had half done.
    map.delete("other-1");
    Atomics.add(words, RunWord.Torn, countTornRows(table));
    writer = await start("writer", next());
  }
  Atomics.store(words, RunWord.Stop, 1);
  await Promise.all([...readers, writer].map(ended));
  reads += words[RunWord.Reads]!;
  let torn = words[RunWord.Torn]! + countTornRows(table);
  let count = 0;
  for (const [, value] of map) {
    count++;
    if (stampOf(value) < 0) torn++;
  }
  if (count !== map.size) throw new Error(`The map has ${map.size} entries, but ${count} came`);
  store[Symbol.dispose]();
  directory.remove();
  return {
    reads,
    writes: words[RunWord.Writes]!,
    torn,
    backward: words[RunWord.Backward]!,
    errors: words[RunWord.Errors]!,
    kills,
    recoveries,
  };
}
