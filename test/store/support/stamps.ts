/** Values that tell whether they are whole: each is words of one number, its stamp. */
import {
  DroppedError,
  ReadOnlyStoreError,
  StaleHandleError,
  Store,
  type StoreHandle,
  type StoreMap,
  type Table,
} from "../../../src/data/index.ts";

export const KEYS = 400;
const MAX_WORDS = 300;
const MAX_ROWS = 200;
const WAVE_KEYS = 1500;
/** Handles of the heap's blocks, which readers see. */
export const HANDLES = 64;
/** `long` is one of the vectors whose old contents the journal keeps as a copy. */
const schema = { stamp: "i32", short: ["i32", 8], long: ["i32", 160], note: "bytes" } as const;

/** Words that all threads of a run share. */
export const RunWord = { Stop: 0, Reads: 1, Torn: 2, Backward: 3, Errors: 4, Writes: 5 } as const;
export const RUN_WORDS = 16;

export interface RunHandle {
  readonly store: StoreHandle;
  readonly words: Int32Array;
  readonly handles: Float64Array;
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

type StampTable = Table<typeof schema>;

export const stampTable = (store: Store): StampTable => store.table("rows", schema);

/** How many rows have cells of several operations. No other thread writes. */
export function countTornRows(table: StampTable): number {
  let torn = 0;
  for (let row = 0; row < table.length; row++) if (!isWholeRow(table, row)) torn++;
  return torn;
}

/** Whether all cells of a row were written by one operation. */
function isWholeRow(table: StampTable, row: number): boolean {
  const { stamp, short, long, note } = table.get(row);
  const isOf = (value: number) => value === stamp;
  return short.every(isOf) && long.every(isOf) && stampOf(note) === stamp;
}

/** What `isTorn` returns, or false if it throws an error that says that nothing is there. */
function unlessGone(isTorn: () => boolean, ...gone: (new (...given: never[]) => Error)[]): boolean {
  try {
    return isTorn();
  } catch (error) {
    if (gone.some((type) => error instanceof type)) return false;
    throw error;
  }
}

/** True if there was such a row, and it is not whole. */
function isTornRow(table: StampTable, row: number): boolean {
  // RangeError: it was removed after `length` was read.
  return unlessGone(() => row < table.length && !isWholeRow(table, row), RangeError);
}

/** Adds or removes the last entries of a map, so that its buckets are split and merged in turn. */
function writeWave(map: StoreMap, stamp: number): void {
  const { size } = map;
  const isGrowing = ((stamp >>> 11) & 1) === 0;
  for (let i = 0; i < 20; i++) {
    if (isGrowing && size + i < WAVE_KEYS) map.set(keyOf(size + i), stamped(stamp));
    else if (!isGrowing) map.delete(keyOf(size - 1 - i));
  }
}

/** Drops a map, and makes it again under its name. */
function replaceShort(store: Store, stamp: number): void {
  store.drop("short");
  const map = store.map("short");
  for (let i = 0; i < 20; i++) map.set(keyOf(i), stamped(stamp));
}

/** True if an entry of the map that comes and goes is there, and is not whole. */
function isTornShort(store: Store): boolean {
  const isTorn = () => {
    const value = store.map("short").get(keyOf(7));
    return value !== undefined && stampOf(value) < 0;
  };
  return unlessGone(isTorn, DroppedError, ReadOnlyStoreError);
}

/** True if there was such a block, and it is not whole. */
function isTornBlock(store: Store, handle: number): boolean {
  return unlessGone(() => stampOf(store.heap.get(handle)) < 0, StaleHandleError);
}

/**
 * Reads until it is stopped: each value is whole, and none is older than one that was read before.
 */
export function readStamps({ store: handle, words, handles, seed }: RunHandle): void {
  const store = Store.attach(handle, { readOnly: true });
  const map = store.map("stamps");
  const table = stampTable(store);
  const waves = store.map("waves");
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
      if (n % 2 === 0) continue;
      if (isTornRow(table, random(MAX_ROWS))) Atomics.add(words, RunWord.Torn, 1);
      if (isTornBlock(store, handles[random(HANDLES)]!)) Atomics.add(words, RunWord.Torn, 1);
      if (n % 10 === 1 && isTornShort(store)) Atomics.add(words, RunWord.Torn, 1);
      const wave = waves.get(keyOf(random(WAVE_KEYS)));
      if (wave !== undefined && stampOf(wave) < 0) Atomics.add(words, RunWord.Torn, 1);
    }
    Atomics.add(words, RunWord.Reads, 1000);
  }
}

/**
 * Writes until it is stopped: stamps that grow, some deleted between, and other entries, so that
 * the map grows; rows and blocks, too.
 */
export function writeStamps({ store: handle, words, handles, seed }: RunHandle): void {
  const store = Store.attach(handle);
  const map = store.map("stamps");
  const table = stampTable(store);
  const waves = store.map("waves");
  const random = randomOf(seed);
  while (Atomics.load(words, RunWord.Stop) === 0) {
    for (let n = 0; n < 50; n++) {
      const stamp = Atomics.add(words, RunWord.Writes, 1) + 1;
      const choice = random(100);
      if (choice < 40) map.set(keyOf(random(KEYS)), stamped(stamp));
      else if (choice < 45) map.delete(keyOf(random(KEYS)));
      else if (choice < 55) map.set(`other-${random(5000)}`, stamped(stamp));
      else if (choice < 59) map.delete(`other-${random(5000)}`);
      else if (choice < 60) replaceShort(store, stamp);
      else if (choice < 65) writeWave(waves, stamp);
      else if (choice < 80) writeRow(table, stamp, random);
      else writeBlock(store, handles, random(HANDLES), stamp);
    }
  }
}

function writeRow(table: StampTable, stamp: number, random: (below: number) => number): void {
  const row = {
    stamp,
    short: new Int32Array(8).fill(stamp),
    long: new Int32Array(160).fill(stamp),
    note: stamped(stamp),
  };
  const { length } = table;
  if (length < MAX_ROWS && random(4) === 0) table.push(row);
  else if (length > 0 && random(4) === 0) table.swapRemove(random(length));
  else if (length > 0) table.set(random(length), row);
}

/** Puts another block in the place of one. */
function writeBlock(store: Store, handles: Float64Array, at: number, stamp: number): void {
  const old = handles[at]!;
  handles[at] = store.heap.put(stamped(stamp));
  // A writer that was terminated here had not published the block that it freed, or put.
  if (store.heap.has(old)) store.heap.free(old);
}
