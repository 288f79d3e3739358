/** Values that tell whether they are whole: each is words of one number, its stamp. */
import { Store, type StoreHandle } from "../../../src/data/index.ts";

export const KEYS = 400;
const MAX_WORDS = 300;

/** Words that all threads of a run share. */
export const RunWord = { Stop: 0, Reads: 1, Torn: 2, Backward: 3, Errors: 4, Writes: 5 } as const;
export const RUN_WORDS = 16;

export interface RunHandle {
  readonly store: StoreHandle;
  readonly words: Int32Array;
  readonly seed: number;
}

const keyOf = (index: number): string => `key-${index}`;

/** xorshift32 */
export function randomOf(seed: number): (below: number) => number {
  let state = seed | 1;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

/** The stamp of a value, or -1 if it is not whole. */
export function stampOf(value: Uint8Array): number {
  const words = new Int32Array(value.buffer, value.byteOffset, value.length >> 2);
  const stamp = words[0]!;
  for (let i = 1; i < words.length; i++) if (words[i] !== stamp) return -1;
  return words.length === 1 + (stamp % MAX_WORDS) ? stamp : -1;
}

function stamped(stamp: number): Uint8Array {
  return new Uint8Array(new Int32Array(1 + (stamp % MAX_WORDS)).fill(stamp).buffer);
}

/**
 * Reads until it is stopped: each value is whole, and none is older than one that was read before.
 */
export function readStamps({ store: handle, words, seed }: RunHandle): void {
  const store = Store.attach(handle, { readOnly: true });
  const map = store.map("stamps");
  const random = randomOf(seed);
  const newest = new Int32Array(KEYS);
  while (Atomics.load(words, RunWord.Stop) === 0) {
    for (let n = 0; n < 500; n++) {
      const index = random(KEYS);
      const value = map.get(keyOf(index));
      if (value === undefined) continue;
      const stamp = stampOf(value);
      if (stamp < 0) Atomics.add(words, RunWord.Torn, 1);
      else if (stamp < newest[index]!) Atomics.add(words, RunWord.Backward, 1);
      else newest[index] = stamp;
    }
    Atomics.add(words, RunWord.Reads, 500);
  }
}

/**
 * Writes until it is stopped: stamps that grow, some deleted between, and other entries, so that
 * the map grows.
 */
export function writeStamps({ store: handle, words, seed }: RunHandle): void {
  const store = Store.attach(handle);
  const map = store.map("stamps");
  const random = randomOf(seed);
  while (Atomics.load(words, RunWord.Stop) === 0) {
    for (let n = 0; n < 50; n++) {
      const stamp = Atomics.add(words, RunWord.Writes, 1) + 1;
      const choice = random(100);
      if (choice < 80) map.set(keyOf(random(KEYS)), stamped(stamp));
      else if (choice < 85) map.delete(keyOf(random(KEYS)));
      else if (choice < 95) map.set(`other-${random(5000)}`, stamped(stamp));
      else map.delete(`other-${random(5000)}`);
    }
  }
}
