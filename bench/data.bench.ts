/**
 * A map of 16-byte keys to 100-byte values: a store's, a Map of JavaScript, lmdb and bun:sqlite.
 *
 * Every get reads a byte of the value, with a key that is new to the engine. "nsPerGet" copies the
 * value in a store, lmdb and SQLite; a Map returns its own object. "nsPerSet" is of new keys in
 * random order, "nsPerReplace" of old ones, both in transactions of 10,000 (a store's `batch`).
 * "nsPerReplaceAlone" is of old keys, each in a transaction of its own, which is what a store's
 * `set` is. LMDB and SQLite do not sync. If a peer's sets take longer than a minute, the rest of
 * its entries is set in the order of the keys, which suits a B-tree, and is not timed.
 *
 * "firstGetMs" is from the start of a process to its first entry, with the files in the page cache;
 * a store's program is built (docs/deploying.md), "firstGetFromSourcesMs" is the same run by `bun`.
 * "heapMib" is the heap that the entries add ("viewedMib" is memory outside of it that buffers
 * show), and "gcMs" one full collection beside them.
 */
import { rmSync } from "node:fs";
import { join } from "node:path";
import { heapStats } from "bun:jsc";
import { keysOf, numberOf, randomNumbers } from "./peers/keys.ts";
import { hasLmdb, openMap, type Key, type KeyKind, type MapPeer } from "./peers/maps.ts";
import {
  type Bench,
  main,
  number,
  type Params,
  type Run,
  type Sample,
  text,
} from "./support/bench.ts";
import { firstAnswer } from "./support/first-answer.ts";
import { median } from "./support/statistics.ts";

const VALUE_BYTES = 100;
/** Keys set in one transaction, and keys that are looked up. */
const BLOCK = 10_000;
const LOOKED_UP = 200_000;
const ALONE = 500;
const ROUNDS = 3;
const MAX_FILL_MS = 60_000;

export const bench: Bench = {
  subject: "data",
  title: "map of 16-byte keys to 100-byte values",
  cases: ({ isSmoke }) => {
    if (isSmoke) return [{ entries: 500, key: "string" }];
    return [100_000, 1_000_000, 10_000_000].flatMap((entries) =>
      ["string", "bytes", "u32"].map((key) => ({ entries, key })),
    );
  },
  rivals: () => ["Map", ...(hasLmdb() ? ["lmdb"] : []), "sqlite"],
  measure: sample,
};

function time(work: () => void): number {
  const began = performance.now();
  work();
  return performance.now() - began;
}

/** Sets entries [0, count), and returns the ns that a set took. */
export function fill(map: MapPeer, count: number, kind: KeyKind): number {
  const value = new Uint8Array(VALUE_BYTES).fill(7);
  let ms = 0;
  let set = 0;
  while (set < count && ms < MAX_FILL_MS) {
    const first = set;
    const numbers = Float64Array.from({ length: Math.min(BLOCK, count - first) }, (_, i) =>
      numberOf(first + i),
    );
    const keys = keysOf(numbers, kind);
    ms += time(() => map.setAll(keys, value));
    set += keys.length;
  }
  const rest = Float64Array.from({ length: count - set }, (_, i) => numberOf(set + i)).sort();
  for (let at = 0; at < rest.length; at += 10 * BLOCK)
    map.setAll(keysOf(rest.subarray(at, at + 10 * BLOCK), kind), value);
  return (1e6 * ms) / set;
}

/** Bytes of objects, and of the memory outside of the heap that buffers show. */
function heapBytes(): { objects: number; viewed: number } {
  Bun.gc(true);
  const viewed = process.memoryUsage().arrayBuffers;
  return { objects: heapStats().heapSize - viewed, viewed };
}

async function sample(params: Params, run: Run): Promise<Sample> {
  const entries = number(params, "entries");
  const kind = text(params, "key") as KeyKind;
  const directory = join(run.directory, `map-${run.by}-${process.pid}`);
  const map = await openMap(run.by, directory, kind);
  const hash = `${entries}`;
  try {
    const heapBefore = heapBytes();
    const nsPerSet = fill(map, entries, kind);
    const heap = heapBytes();
    const gcMs = median(Array.from({ length: ROUNDS }, () => time(() => Bun.gc(true))));
    const figures: Record<string, number> = {
      nsPerSet,
      ...operations(map, entries, kind),
      gcMs,
      heapMib: (heap.objects - heapBefore.objects) / 2 ** 20,
      viewedMib: (heap.viewed - heapBefore.viewed) / 2 ** 20,
    };
    if (run.by === "Map") return { figures, hash };
    const closeMs = await timeAsync(() => map.close());
    const first = kind === "string" ? firstGets(run, directory) : {};
    return { figures: { ...figures, closeMs, ...first }, hash };
  } finally {
    removeMap(directory);
  }
}

export function removeMap(directory: string): void {
  rmSync(directory, { recursive: true, force: true });
  for (const end of ["", "-wal", "-shm"]) rmSync(`${directory}.sqlite${end}`, { force: true });
}

/** Gets and replacements of a full map. */
function operations(map: MapPeer, entries: number, kind: KeyKind): Record<string, number> {
  const count = Math.min(LOOKED_UP, 4 * entries);
  const randomKeys = () => keysOf(randomNumbers(count, entries), kind);
  const nsPer = (read: (key: Key) => Uint8Array | undefined) => {
    const rounds = Array.from({ length: ROUNDS }, () => {
      const keys = randomKeys();
      let sum = 0;
      const ms = time(() => {
        for (const key of keys) sum += read(key)![0]!;
      });
      if (sum !== 7 * count) throw new Error(`Expected ${count} values of 7s, got ${sum}`);
      return ms;
    });
    return (1e6 * median(rounds)) / count;
  };
  const figures: Record<string, number> = { nsPerGet: nsPer((key) => map.get(key)) };
  const { getView } = map;
  if (getView !== undefined) figures["nsPerGetView"] = nsPer((key) => getView(key));
  const value = new Uint8Array(VALUE_BYTES).fill(8);
  const replaced = randomKeys();
  const blocks = Array.from({ length: Math.ceil(count / BLOCK) }, (_, i) =>
    replaced.slice(BLOCK * i, BLOCK * (i + 1)),
  );
  const replaceMs = time(() => {
    for (const block of blocks) map.setAll(block, value);
  });
  const alone = randomKeys().slice(0, ALONE);
  const aloneMs = time(() => {
    for (const key of alone) map.set(key, value);
  });
  figures["nsPerReplace"] = (1e6 * replaceMs) / count;
  figures["nsPerReplaceAlone"] = (1e6 * aloneMs) / alone.length;
  return figures;
}

async function timeAsync(work: () => Promise<void>): Promise<number> {
  const began = performance.now();
  await work();
  return performance.now() - began;
}

function firstGets(run: Run, directory: string): Record<string, number> {
  const program = join(import.meta.dir, "peers/first-get.ts");
  const key = keysOf(Float64Array.of(numberOf(3)), "string")[0] as string;
  const given = [run.by, directory, "string", key];
  const { deployedMs, fromSourcesMs } = firstAnswer(run, program, given, VALUE_BYTES);
  return { firstGetMs: deployedMs, firstGetFromSourcesMs: fromSourcesMs };
}

if (import.meta.main) await main(bench);
