/** Table against an array of rows: the same commands, and after each the same rows. */
import { afterAll, expect, test } from "bun:test";
import { rmSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { Store, type Table } from "../../src/data/index.ts";
import { failAtEachStep, hex, temporaryDirectory } from "./support/support.ts";

const directory = temporaryDirectory();
afterAll(directory.remove);
let count = 0;

const schema = {
  id: "u32",
  small: "i8",
  odd: ["u8", 3],
  vector: ["f32", 5],
  wide: ["f64", 100],
  big: "u64",
  text: "bytes",
} as const;
type Row = {
  id: number;
  small: number;
  odd: number[];
  vector: number[];
  wide: number[];
  big: bigint;
  text: Uint8Array;
};
const ZERO: Row = {
  id: 0,
  small: 0,
  odd: [0, 0, 0],
  vector: [0, 0, 0, 0, 0],
  wide: new Array(100).fill(0),
  big: 0n,
  text: new Uint8Array(0),
};

interface Real {
  store: Store;
  table: Table<typeof schema>;
  where: string;
}
type Command = fc.AsyncCommand<Row[], Real>;

const visible = (row: Record<string, unknown>) =>
  Object.fromEntries(
    Object.entries(row).map(([name, value]) => [
      name,
      value instanceof Uint8Array && name === "text"
        ? hex(value)
        : ArrayBuffer.isView(value)
          ? Array.from(value as unknown as ArrayLike<number>)
          : value,
    ]),
  );

function compare(model: Row[], { table }: Real): void {
  expect(table.length).toBe(model.length);
  for (const [i, row] of model.entries()) expect(visible(table.get(i))).toEqual(visible(row));
  const ids = table.column("id").flatMap((chunk) => [...chunk]);
  expect(ids).toEqual(model.map(({ id }) => id));
  const wide = table.column("wide").flatMap((chunk) => [...chunk]);
  expect(wide).toEqual(model.flatMap((row) => row.wide));
}

const float = fc.float({ noNaN: true, noDefaultInfinity: true }).map((value) => value + 0);
const numbers = (value: fc.Arbitrary<number>, length: number) =>
  fc.array(value, { minLength: length, maxLength: length });
const values = fc.record(
  {
    id: fc.nat(),
    small: fc.integer({ min: -128, max: 127 }),
    odd: numbers(fc.integer({ min: 0, max: 255 }), 3),
    vector: numbers(float, 5),
    wide: fc
      .integer({ min: 1, max: 1000 })
      .map((n) => Array.from({ length: 100 }, (_, i) => n * i)),
    big: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
    text: fc.oneof(
      fc.uint8Array({ maxLength: 100 }),
      fc.integer({ min: 0, max: 40_000 }).map((n) => new Uint8Array(n).fill(n)),
    ),
  },
  { requiredKeys: [] },
);
type Values = Partial<Row>;

const command = (
  name: string,
  run: (model: Row[], real: Real) => Promise<void> | void,
): Command => ({
  check: () => true,
  async run(model, real) {
    await run(model, real);
    await real.store.memory.awaitLoad();
    compare(model, real);
  },
  toString: () => name,
});

const commands: fc.Arbitrary<Command>[] = [
  values.map((row: Values) =>
    command("push", async (model, { store, table }) => {
      expect(await store.whenLoaded(() => table.push(row))).toBe(model.length);
      model.push({ ...ZERO, ...row });
    }),
  ),
  fc.tuple(fc.integer({ min: 1, max: 300 }), values).map(([n, row]: [number, Values]) =>
    command(`push ${n}`, async (model, { store, table }) => {
      for (let i = 0; i < n; i++) {
        await store.whenLoaded(() => table.push({ ...row, id: i }));
        model.push({ ...ZERO, ...row, id: i });
      }
    }),
  ),
  fc.tuple(fc.nat(), values).map(([at, row]: [number, Values]) =>
    command("set", async (model, { store, table }) => {
      if (model.length === 0) return;
      const index = at % model.length;
      await store.whenLoaded(() => table.set(index, row));
      model[index] = { ...model[index]!, ...row };
    }),
  ),
  fc.nat().map((at) =>
    command("swapRemove", async (model, { store, table }) => {
      if (model.length === 0) return;
      const index = at % model.length;
      const last = model.length - 1;
      const moved = await store.whenLoaded(() => table.swapRemove(index));
      expect(moved).toBe(index === last ? -1 : last);
      model[index] = model[last]!;
      model.pop();
    }),
  ),
  fc.nat().map((length) =>
    command("truncate", async (model, { store, table }) => {
      const next = length % (model.length + 1);
      await store.whenLoaded(() => table.truncate(next));
      model.length = next;
    }),
  ),
  fc.constant(
    command("restart", async (_, real) => {
      await real.store.close();
      real.store = await Store.open(real.where);
      real.table = await real.store.whenLoaded(() => real.store.table("t", schema));
    }),
  ),
];

test("Table answers as an array of rows does, over restarts", async () => {
  await fc.assert(
    fc.asyncProperty(fc.commands(commands, { maxCommands: 20 }), async (run) => {
      const where = join(directory.path, `${count++}`);
      const store = await Store.open(where, { create: true });
      const real: Real = { store, table: store.table("t", schema), where };
      try {
        await fc.asyncModelRun(() => ({ model: [] as Row[], real }), run);
      } finally {
        real.store[Symbol.dispose]();
        rmSync(where, { recursive: true, force: true });
      }
    }),
    { numRuns: 30 },
  );
}, 120_000);

test("a table operation that fails at any step changes nothing", async () => {
  await using store = await Store.open(join(directory.path, "faults"), { create: true });
  const table = store.table("t", schema);
  const wide = Array.from({ length: 100 }, (_, i) => i);
  for (let i = 0; i < 10; i++)
    table.push({ id: i, wide, vector: [i, 1, 2, 3, 4], text: new Uint8Array(i * 50) });
  const rows = () =>
    JSON.stringify(
      Array.from({ length: table.length }, (_, i) => visible(table.get(i))),
      (_, value) => (typeof value === "bigint" ? `${value}` : value),
    );
  const operations: (() => void)[] = [
    () => table.push({ id: 99, wide, text: new Uint8Array(60_000) }),
    () => table.set(3, { id: 77, wide: new Array(100).fill(5), text: new Uint8Array(9) }),
    () => table.swapRemove(2),
    () => table.swapRemove(table.length - 1),
    () => table.set(0, { small: -3, odd: [1, 2, 3], big: 5n }),
  ];
  for (const operate of operations) {
    const before = rows();
    expect(failAtEachStep(store, operate, () => expect(rows()).toBe(before))).toBeGreaterThan(1);
    expect(rows()).not.toBe(before);
  }
});

test("set of a long vector that fails at any step changes nothing", async () => {
  await using store = await Store.open(join(directory.path, "long"), { create: true });
  // What the journal keeps of it needs a window of its own.
  const table = store.table("t", { a: "u32", first: ["f64", 60_000], second: ["u8", 301] });
  const rowOf = (value: number) => ({
    a: value,
    first: new Float64Array(60_000).fill(value),
    second: new Uint8Array(301).fill(value),
  });
  for (let i = 0; i < 3; i++) table.push(rowOf(i));
  const hash = () => {
    const { a, first, second } = table.get(1);
    return `${a} ${Bun.hash(first)} ${Bun.hash(second)} ${table.get(2).second}`;
  };
  const before = hash();
  const unchanged = () => expect(hash()).toBe(before);
  expect(failAtEachStep(store, () => table.set(1, rowOf(9)), unchanged)).toBeGreaterThan(10);
  expect(table.get(1).first.every((value) => value === 9)).toBe(true);
  const after = hash();
  failAtEachStep(
    store,
    () => table.addColumn("more", ["i16", 200]),
    () => expect([hash(), Object.keys(table.schema).length]).toEqual([after, 3]),
  );
  expect(table.get(1)).toHaveProperty("more", new Int16Array(200));
});

test("addColumn adds zeros, and survives a restart", async () => {
  const where = join(directory.path, "added");
  const store = await Store.open(where, { create: true });
  const table = store.table("t", { a: "u32" });
  for (let i = 0; i < 10_000; i++) table.push({ a: i });
  const wider = table.addColumn("score", "f64").addColumn("note", "bytes");
  expect(wider.get(9999)).toEqual({ a: 9999, score: 0, note: new Uint8Array(0) });
  wider.set(5000, { score: 0.5, note: new Uint8Array([7]) });
  expect(
    wider
      .column("score")
      .flatMap((chunk) => [...chunk])
      .filter((x) => x !== 0),
  ).toEqual([0.5]);
  await store.close();
  await using again = await Store.open(where);
  const found = await again.whenLoaded(() => again.table("t", { score: "f64" }));
  expect(await again.whenLoaded(() => found.get(5000) as unknown)).toEqual({
    a: 5000,
    score: 0.5,
    note: new Uint8Array([7]),
  });
  expect(found.schema as unknown).toEqual({ a: "u32", score: "f64", note: "bytes" });
});

test("table throws for bad schemas, values and rows", async () => {
  await using store = await Store.open(join(directory.path, "bad"), { create: true });
  const table = store.table("t", { a: "u8", v: ["f32", 2], t: "bytes" });
  expect(() => store.table("t", { a: "i8" })).toThrow(
    expect.objectContaining({ code: "ERR_WRONG_TYPE" }),
  );
  expect(() => store.table("t", { other: "i8" })).toThrow(
    expect.objectContaining({ code: "ERR_WRONG_TYPE" }),
  );
  expect(() => store.map("t")).toThrow(expect.objectContaining({ code: "ERR_WRONG_TYPE" }));
  expect(() => store.table("u", { a: "text" as never })).toThrow(TypeError);
  expect(() => store.table("u", {})).toThrow(RangeError);
  expect(() => store.table("none")).toThrow(RangeError);
  expect(() => table.push({ a: 256 })).toThrow(RangeError);
  expect(() => table.push({ a: "1" as never })).toThrow(TypeError);
  expect(() => table.push({ v: [1] })).toThrow(RangeError);
  expect(() => table.push({ b: 1 } as never)).toThrow(RangeError);
  expect(() => table.get(0)).toThrow(RangeError);
  expect(() => table.set(-1, {})).toThrow(RangeError);
  expect(table.length).toBe(0);
});
