/**
 * A Worker that gets random entries of a map, or replaces them until the readers are done. It posts
 * the ns that one took.
 */
import { parentPort, workerData } from "node:worker_threads";
import { keysOf, randomNumbers } from "./keys.ts";
import { joinMap, type KeyKind } from "./maps.ts";

export interface MapTask {
  readonly by: string;
  readonly shared: unknown;
  readonly kind: KeyKind;
  readonly entries: number;
  readonly role: "reader" | "writer";
  /** Word 0: not 0 when the threads may begin. Word 1: readers that are done. */
  readonly words: Int32Array;
}

const MAX_GETS = 300_000;
const GETS_PER_ENTRY = 20;
/** Sets of one transaction. */
const SETS = 100;

const { by, shared, kind, entries, role, words } = workerData as MapTask;
const map = await joinMap(by, shared, kind);
const gets = Math.min(MAX_GETS, GETS_PER_ENTRY * entries);
const keys = keysOf(randomNumbers(gets, entries), kind);
const value = new Uint8Array(100).fill(7);
parentPort!.postMessage("ready");
Atomics.wait(words, 0, 0);
const began = performance.now();
let count = 0;
if (role === "reader") {
  for (const key of keys) count += map.get(key)![0]! / 7;
  Atomics.add(words, 1, 1);
} else {
  for (; Atomics.load(words, 1) === 0; count += SETS)
    map.setAll(keys.slice(count % gets, (count % gets) + SETS), value);
}
parentPort!.postMessage((1e6 * (performance.now() - began)) / count);
