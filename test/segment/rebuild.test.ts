/**
 * A thread may die between any two stores. The test records every store of an operation, applies
 * each prefix to a copy of the earlier tables, and repairs the copy. The result must be a valid set
 * in which each key has its value from before or after.
 */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { checkInvariants } from "../../src/segment/invariants.ts";
import { type SegmentTables, segmentLayout, segmentLengths } from "../../src/segment/layout.ts";
import { rebuildTables } from "../../src/segment/rebuild.ts";
import { SegmentSet } from "../../src/segment/segment-set.ts";

const CAPACITY = 3000;
const CLASSES = 4;
const LAYOUT = segmentLayout(CAPACITY);

interface Store {
  readonly table: number;
  readonly index: number;
  readonly value: number;
}

type Arrays = readonly [Uint8Array, ...Int32Array[]];

function newArrays(): Arrays {
  const { values, owners, bits, summary } = segmentLengths(LAYOUT, CAPACITY);
  const words = [owners, bits, ...Array.from({ length: CLASSES }, () => summary)];
  return [new Uint8Array(values), ...words.map((length) => new Int32Array(length))];
}

function copyOf([values, ...words]: Arrays): Arrays {
  return [values.slice(), ...words.map((array) => array.slice())];
}

function tablesOf(arrays: Arrays): SegmentTables {
  const [values, owners, bits, ...summaries] = arrays as [
    Uint8Array,
    Int32Array,
    Int32Array,
    ...Int32Array[],
  ];
  return {
    values,
    bits,
    classes: CLASSES,
    owners: () => owners,
    summary: (cls) => summaries[cls]!,
  };
}

/** The same memory, with every store recorded in `log`. */
function recording([values, ...words]: Arrays, log: Store[]): SegmentTables {
  const record = <Table extends Uint8Array | Int32Array>(array: Table, table: number): Table =>
    new Proxy(array, {
      get: (target, key) => Reflect.get(target, key, target) as unknown,
      set: (target, key, value: number) => {
        log.push({ table, index: Number(key), value });
        target[Number(key)] = value;
        return true;
      },
    });
  return tablesOf([record(values, 0), ...words.map((array, i) => record(array, i + 1))]);
}

type Operation =
  | ({
      readonly kind: "assign" | "replace";
      readonly at: number;
      readonly refs: number;
      readonly group: number;
    } & Extent)
  | { readonly kind: "addRefs"; readonly at: number; readonly length: number; readonly by: number }
  | ({ readonly kind: "extend" } & Extent);

interface Extent {
  readonly length: number;
  readonly tag: number;
}

function apply(set: SegmentSet, operation: Operation): void {
  const { length } = operation;
  if (operation.kind === "extend") {
    set.extend(Math.min(length, CAPACITY - set.size), operation.tag);
    return;
  }
  const at = Math.min(operation.at, set.size - 1);
  if (operation.kind === "addRefs") {
    const [run, runEnd] = [set.startOf(at), set.endOf(at)];
    set.addRefsIn(run, runEnd, at, Math.min(runEnd, at + length), operation.by);
    return;
  }
  const { tag } = operation;
  if (operation.kind === "assign")
    set.assign(at, Math.min(set.size, at + length), tag, operation.refs, operation.group);
  else set.replace(at, Math.min(set.endOf(at), at + length), tag, operation.refs, operation.group);
}

function valuesOf(set: SegmentSet): string[] {
  const values: string[] = [];
  if (set.size === 0) return values;
  set.visit(0, set.size, (start, end, tag, refs, group) => {
    for (let key = start; key < end; key++) values.push(`${tag}/${refs}/${group}`);
  });
  return values;
}

// Values on both sides of the limit of a byte: tags below 64 with refs of 0 to 3, group 0.
const tag = fc.oneof(
  { arbitrary: fc.nat({ max: 5 }), weight: 4 },
  { arbitrary: fc.constantFrom(16, 47, 48, 63, 64, 69), weight: 1 },
);
const ofRange = <Kind extends string>(kind: Kind) =>
  fc.record({
    kind: fc.constant(kind),
    at: fc.nat({ max: CAPACITY }),
    length: fc.integer({ min: 1, max: 200 }),
    tag,
    refs: fc.constantFrom(0, 1, 2, 3, 4, 5, 50_000),
    group: fc.constantFrom(0, 0, 0, 1),
  });
const operation: fc.Arbitrary<Operation> = fc.oneof(
  ofRange("assign" as const),
  ofRange("replace" as const),
  fc.record({
    kind: fc.constant("addRefs" as const),
    at: fc.nat({ max: CAPACITY }),
    length: fc.integer({ min: 1, max: 200 }),
    by: fc.constantFrom(1, -1),
  }),
);
const withExtend = fc.oneof(
  { arbitrary: operation, weight: 8 },
  {
    arbitrary: fc.record({
      kind: fc.constant("extend" as const),
      length: fc.integer({ min: 32, max: 200 }),
      tag,
    }),
    weight: 1,
  },
);

test("rebuildTables leaves each key as before or after, for a death at any store", () => {
  let deaths = 0;
  fc.assert(
    fc.property(fc.array(withExtend, { minLength: 1, maxLength: 40 }), (operations) => {
      const arrays = newArrays();
      const log: Store[] = [];
      const set = new SegmentSet(LAYOUT, recording(arrays, log));
      set.extend(1500, 0);
      for (const each of operations) {
        const copies = copyOf(arrays);
        const sizeBefore = set.size;
        if (each.kind === "extend" && sizeBefore === CAPACITY) continue;
        const before = valuesOf(set);
        log.length = 0;
        apply(set, each);
        const plain = new SegmentSet(LAYOUT, tablesOf(arrays));
        plain.size = set.size;
        checkInvariants(plain);
        const after = valuesOf(set);
        const stores = log.slice();
        for (let count = 0; count <= stores.length; count++) {
          if (count > 0) {
            const { table, index, value } = stores[count - 1]!;
            copies[table]![index] = value;
          }
          if (isInsideRecord(stores, count)) continue;
          const survivor = new SegmentSet(LAYOUT, tablesOf(copyOf(copies)));
          // The size is stored last.
          survivor.size = sizeBefore;
          rebuildTables(survivor);
          checkInvariants(survivor);
          const values = valuesOf(survivor);
          // An assign may leave the value of its first key in all of its keys.
          const first =
            each.kind === "assign" ? before[Math.min(each.at, sizeBefore - 1)] : undefined;
          const torn = values.findIndex(
            (value, key) => value !== before[key] && value !== after[key] && value !== first,
          );
          if (torn >= 0) {
            throw new Error(
              `Key ${torn} is ${values[torn]}, was ${before[torn]}, should be ${after[torn]} ` +
                `(store ${count})`,
            );
          }
          deaths++;
        }
      }
    }),
    { numRuns: 30 },
  );
  expect(deaths).toBeGreaterThan(1000);
});

/**
 * True if the next store belongs to the same run's value as the last one: its owner comes first,
 * then its byte. A thread cannot end in between (it ends at the start of a function or the end of a
 * loop's round), so no such state is ever found.
 */
function isInsideRecord(stores: readonly Store[], count: number): boolean {
  const last = stores[count - 1];
  const next = stores[count];
  return last !== undefined && next !== undefined && last.table === 1 && next.table <= 1;
}

test("rebuildTables refuses tables without a run at key 0", () => {
  const set = SegmentSet.create(CAPACITY, CLASSES);
  set.extend(100, 0);
  set.tables.bits.fill(0);
  expect(() => rebuildTables(set)).toThrow("No run starts");
});
