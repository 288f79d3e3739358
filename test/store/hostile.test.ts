/**
 * Checkpoints whose pages an attacker changed, with right checksums: a store that opens one throws
 * typed errors, ends every call, and writes nowhere but to its own pages.
 *
 * PGALLOC_HOSTILE_RUNS makes it longer; a failure prints the seed that replays it.
 */
import { afterAll, expect, test } from "bun:test";
import { rmSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { Store } from "../../src/data/index.ts";
import { Root, WINDOWS_AT } from "../../src/data/layout.ts";
import { MemoryFile, PAGE_SIZE } from "../../src/index.ts";
import { arenaOf, temporaryDirectory } from "./support/support.ts";

const runs = Number(process.env["PGALLOC_HOSTILE_RUNS"] ?? 40);
const directory = temporaryDirectory();
afterAll(directory.remove);

const LIMIT_BYTES = 96 * 2 ** 20;
const schema = { n: "u32", vector: ["f32", 70], text: "bytes" } as const;
const handles: number[] = [];
const base = join(directory.path, "base");

async function makeBase(): Promise<void> {
  const store = await Store.open(base, { create: true, limitBytes: LIMIT_BYTES });
  const map = store.map("m", { maxEntries: 1500 });
  for (let i = 0; i < 1500; i++) map.set(`key-${i}`, new Uint8Array(i % 300), { ttlMs: 1e9 });
  const numbers = store.map("n", { key: "u32" });
  for (let i = 0; i < 800; i++) numbers.set(i, new Uint8Array(20));
  for (let i = 0; i < 400; i++) numbers.delete(2 * i);
  const table = store.table("t", schema);
  for (let i = 0; i < 200; i++) table.push({ n: i, text: new Uint8Array(i) });
  for (let i = 0; i < 60; i++) handles.push(store.heap.put(new Uint8Array(i * 700)));
  for (let i = 0; i < 60; i += 2) store.heap.free(handles[i]!);
  await store.close();
}
await makeBase();

interface Edit {
  /** Which of the words that are not 0, modulo their number. */
  readonly place: number;
  readonly kind: "set" | "add" | "copy" | "flip";
  readonly value: number;
}

const interesting = [0, 1, -1, 2, 0x7fff_ffff, -0x8000_0000, 0xffff, 496, 4096, 1 << 15, 1 << 23];
const edit: fc.Arbitrary<Edit> = fc.record({
  place: fc.noBias(fc.nat()),
  kind: fc.constantFrom("set", "add", "copy", "flip"),
  value: fc.oneof(fc.constantFrom(...interesting), fc.integer()),
});

/** Words of the root, of headers and of records come more often than those of contents. */
function wordsOf(words: Int32Array, weight: number): number[] {
  const used: number[] = [];
  for (let i = 0; i < words.length; i++) if (words[i] !== 0 && i % weight === 0) used.push(i);
  return used;
}

async function spoil(where: string, edits: readonly Edit[]): Promise<void> {
  const store = await Store.open(base, { readOnly: true, limitBytes: LIMIT_BYTES });
  await store.memory.awaitLoad();
  const arena = arenaOf(store);
  const places = arena.words.flatMap((words, window) =>
    words === undefined
      ? []
      : wordsOf(words, window === 0 ? 1 : 7).map((word) => ({ words, word })),
  );
  for (const { place, kind, value } of edits) {
    const { words, word } = places[place % places.length]!;
    if (kind === "set") words[word] = value;
    else if (kind === "add") words[word]! += (value % 5) + 1;
    else if (kind === "flip") words[word]! ^= 1 << (value & 31);
    else {
      const other = places[Math.abs(value) % places.length]!;
      words[word] = other.words[other.word]!;
    }
  }
  await store.memory.saveTo(where, { userData: store.memory.userData!, incremental: false });
  store[Symbol.dispose]();
}

const TYPED = new Set([
  "ERR_CORRUPT_STORE",
  "ERR_WRONG_TYPE",
  "ERR_STALE_HANDLE",
  "ERR_DROPPED",
  "ENOMEM",
]);

function expectTyped(error: unknown): void {
  const code = (error as { code?: string }).code;
  // A row that is not there, or a map that is full, is a RangeError.
  if ((code !== undefined && TYPED.has(code)) || error instanceof RangeError) return;
  throw error;
}

function attempt(operate: () => void): void {
  try {
    operate();
  } catch (error) {
    expectTyped(error);
  }
}

function useAll(store: Store): void {
  for (const [name, key] of [
    ["m", "string"],
    ["n", "u32"],
  ] as const)
    attempt(() => {
      const map = store.map(name, { key });
      const keyOf = (i: number) => (key === "u32" ? i : `key-${i}`) as never;
      for (let i = 0; i < 30; i++) {
        attempt(() => map.get(keyOf(i * 37)));
        attempt(() => map.set(keyOf(i * 53), new Uint8Array(i * 40)));
        attempt(() => map.delete(keyOf(i * 41)));
        attempt(() => map.set(keyOf(10_000 + i), new Uint8Array(10)));
      }
      attempt(() => {
        let count = 0;
        for (const _ of map) if (++count > 1e5) throw new RangeError("endless");
      });
      attempt(() => map.removeExpired());
    });
  attempt(() => {
    const table = store.table("t", schema);
    for (let i = 0; i < 20; i++) {
      attempt(() => table.get(i * 7));
      attempt(() => table.set(i * 3, { text: new Uint8Array(i * 100), n: i }));
      attempt(() => table.push({ n: i, vector: new Array(70).fill(i), text: new Uint8Array(5) }));
      attempt(() => table.swapRemove(i * 2));
    }
    attempt(() => table.column("vector").length);
    attempt(() => table.truncate(3));
  });
  for (const handle of handles) {
    attempt(() => store.heap.get(handle));
    attempt(() => store.heap.free(handle));
    attempt(() => store.heap.put(new Uint8Array(handle % 50_000)));
  }
  for (const name of ["m", "t"]) attempt(() => store.drop(name));
}

test("a store with hostile pages throws typed errors, and writes to no other pages", async () => {
  let opened = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(edit, { minLength: 1, maxLength: 6 }), async (edits) => {
      const where = join(directory.path, "spoilt");
      await spoil(where, edits);
      let store: Store;
      try {
        store = await Store.open(where, { limitBytes: LIMIT_BYTES });
      } catch (error) {
        expectTyped(error);
        return;
      }
      opened++;
      const canary = store.memory.allocate(4 * PAGE_SIZE);
      store.memory.view(canary).fill(0x5a);
      await store.memory.awaitLoad();
      useAll(store);
      expect(store.memory.view(canary).every((byte) => byte === 0x5a)).toBe(true);
      store[Symbol.dispose]();
      rmSync(where, { recursive: true, force: true });
    }),
    { numRuns: runs, examples: [[[{ place: 0, kind: "set", value: 0 }]]] },
  );
  expect(opened).toBeGreaterThan(runs / 4);
}, 300_000);

/** A table of windows that names one range twice, or one that is not allocated. */
test("a store whose windows overlap or are not its own does not open", async () => {
  const where = join(directory.path, "windows");
  for (const change of [
    (root: Int32Array) => (root[WINDOWS_AT + 16] = root[WINDOWS_AT + 8]!),
    (root: Int32Array) => (root[WINDOWS_AT + 8] = 200_000),
    (root: Int32Array) => (root[WINDOWS_AT + 9] = 32_768),
    (root: Int32Array) => (root[Root.WindowCount] = -1),
    (root: Int32Array) => (root[Root.JournalCount] = 5),
    (root: Int32Array) => (root[Root.MagicLow] = 5),
  ]) {
    const source = await Store.open(base, { readOnly: true });
    await source.memory.awaitLoad();
    change(arenaOf(source).root);
    const { userData } = source.memory;
    await source.memory.saveTo(where, { userData: userData!, incremental: false });
    source[Symbol.dispose]();
    expect(Store.open(where)).rejects.toMatchObject({ code: "ERR_CORRUPT_STORE" });
  }
});

test("a checkpoint whose userData names another place does not open as a store", async () => {
  using file = await MemoryFile.loadFrom(base);
  const where = join(directory.path, "user-data");
  for (const start of [-PAGE_SIZE, 1, Number.NaN, 2 ** 60, 8 * 2 ** 20]) {
    const userData = new Uint8Array(file.userData!);
    new DataView(userData.buffer).setFloat64(8, start, true);
    await file.saveTo(where, { userData });
    expect(Store.open(where)).rejects.toMatchObject({ code: "ERR_CORRUPT_STORE" });
  }
});
