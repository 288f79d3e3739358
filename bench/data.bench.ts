/**
 * A map of 16-byte keys to 100-byte values: a store's, a Map of JavaScript, lmdb and bun:sqlite.
 * "nsPerGet" copies the value in a store, lmdb and SQLite; a Map returns its own object.
 * "firstGetMs" is from the start of a process to its first entry, with the files in the page cache;
 * a Map would have to be filled first. "heapMib" is the heap that the entries add ("viewedMib" is
 * memory outside of it that buffers show), and "gcMs" one full collection beside them.
 */
import { rmSync } from "node:fs";
import { join } from "node:path";
import { heapStats } from "bun:jsc";
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

const VALUE_BYTES = 100;
/** How many keys are set in one round, and how many are looked up. */
const BLOCK = 10_000;
const LOOKED_UP = 200_000;
const ROUNDS = 3;

export const bench: Bench = {
  subject: "data",
  title: "map of 16-byte keys to 100-byte values",
  cases: ({ isSmoke }) => {
    if (isSmoke) return [{ entries: 500, key: "string" }];
    return [
      { entries: 100_000, key: "string" },
      { entries: 1_000_000, key: "string" },
      { entries: 10_000_000, key: "string" },
      { entries: 1_000_000, key: "bytes" },
      { entries: 1_000_000, key: "u32" },
    ];
  },
  rivals: () => ["Map", ...(hasLmdb() ? ["lmdb"] : []), "sqlite"],
  measure: sample,
};

/** The key of an entry: a new object, as in a request. */
function keyOf(index: number, kind: KeyKind): Key {
  const number = (index * 2_654_435_761) % 2 ** 32;
  if (kind === "u32") return number;
  const key = `user:${number.toString(36).padStart(11, "0")}`;
  return kind === "string" ? key : Buffer.from(key);
}

const medianOf = (values: readonly number[]) =>
  [...values].sort((a, b) => a - b)[values.length >> 1]!;

function time(work: () => void): number {
  const began = performance.now();
  work();
  return performance.now() - began;
}

/** Sets entries [0, count). Only the sets are timed. */
function fill(map: MapPeer, count: number, kind: KeyKind): number {
  const value = new Uint8Array(VALUE_BYTES).fill(7);
  let ms = 0;
  for (let first = 0; first < count; first += BLOCK) {
    const length = Math.min(BLOCK, count - first);
    const keys = Array.from({ length }, (_, i) => keyOf(first + i, kind));
    ms += time(() => map.setAll(keys, value));
  }
  return (1e6 * ms) / count;
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
  const heapBefore = heapBytes();
  const nsPerSet = fill(map, entries, kind);
  const heap = heapBytes();
  const heapMib = (heap.objects - heapBefore.objects) / 2 ** 20;
  const viewedMib = (heap.viewed - heapBefore.viewed) / 2 ** 20;
  const gcMs = medianOf(Array.from({ length: ROUNDS }, () => time(() => Bun.gc(true))));
  const length = Math.min(LOOKED_UP, 4 * entries);
  const wanted = Array.from({ length }, () => keyOf(Math.floor(Math.random() * entries), kind));
  let sum = 0;
  const nsPer = (read: (key: Key) => Uint8Array | undefined) => {
    const rounds = Array.from({ length: ROUNDS }, () =>
      time(() => {
        sum = 0;
        for (const key of wanted) sum += read(key)!.length;
      }),
    );
    if (sum !== length * VALUE_BYTES) throw new Error(`${run.by} gave ${sum} bytes`);
    return (1e6 * medianOf(rounds)) / length;
  };
  const nsPerGet = nsPer((key) => map.get(key));
  const { getView } = map;
  const nsPerGetView = getView === undefined ? undefined : nsPer((key) => getView(key));
  const value = new Uint8Array(VALUE_BYTES).fill(8);
  const nsPerReplace = (1e6 * time(() => map.setAll(wanted, value))) / length;
  const closeMs = await timeAsync(() => map.close());
  const firstGetMs =
    run.by === "Map" ? undefined : await firstGet(run.by, directory, kind, wanted[0]!);
  rmSync(directory, { recursive: true, force: true });
  for (const end of ["", "-wal", "-shm"]) rmSync(`${directory}.sqlite${end}`, { force: true });
  const figures: Record<string, number> = {
    nsPerSet,
    nsPerGet,
    nsPerReplace,
    gcMs,
    heapMib,
    viewedMib,
  };
  if (run.by !== "Map") figures["closeMs"] = closeMs;
  if (nsPerGetView !== undefined) figures["nsPerGetView"] = nsPerGetView;
  if (firstGetMs !== undefined) figures["firstGetMs"] = firstGetMs;
  return { figures, hash: `${sum}` };
}

async function timeAsync(work: () => Promise<void>): Promise<number> {
  const began = performance.now();
  await work();
  return performance.now() - began;
}

/** Ms from a process's start to its first entry. */
async function firstGet(
  by: string,
  directory: string,
  kind: KeyKind,
  key: Key,
): Promise<number | undefined> {
  if (kind !== "string") return undefined;
  const program = join(import.meta.dir, "peers/first-get.ts");
  const found: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const child = Bun.spawnSync([process.execPath, program, by, directory, kind, String(key)]);
    const [ms, length] = child.stdout.toString().split(" ").map(Number);
    if (length !== VALUE_BYTES) throw new Error(`${by} found nothing: ${child.stderr}`);
    found.push(ms!);
  }
  return medianOf(found);
}

if (import.meta.main) await main(bench);
