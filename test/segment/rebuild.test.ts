/**
 * A thread may die between any two stores. Here every store of an operation is recorded, each prefix of them is applied to
 * a copy of the tables as they were, and the copy is repaired: it must be a valid set, in which each key has its value from
 * before or after.
 */
import { expect, test } from "bun:test";
import fc from "fast-check";
import {
  checkInvariants,
  rebuildTables,
  SegmentSet,
  type SegmentTables,
  segmentLayout,
  segmentWords,
} from "../../src/segment/index.ts";

const CAPACITY = 3000;
const CLASSES = 4;
const LAYOUT = segmentLayout(CAPACITY);

interface Store {
  readonly table: number;
  readonly index: number;
  readonly value: number;
}

function tablesOf(arrays: readonly Int32Array[]): SegmentTables {
  const [values, owners, bits, ...summaries] = arrays as [Int32Array, Int32Array, Int32Array, ...Int32Array[]];
  return { values, owners, bits, summaries };
}

/** The same memory, but every store is also put down in `log`. */
function recording(arrays: readonly Int32Array[], log: Store[]): SegmentTables {
  return tablesOf(
    arrays.map(
      (array, table) =>
        new Proxy(array, {
          get: (target, key) => Reflect.get(target, key, target) as unknown,
          set: (target, key, value: number) => {
            log.push({ table, index: Number(key), value });
            target[Number(key)] = value;
            return true;
          },
        }),
    ),
  );
}

type Operation =
  | { readonly kind: "assign"; readonly at: number; readonly length: number; readonly tag: number; readonly refs: number }
  | { readonly kind: "replace"; readonly at: number; readonly length: number; readonly tag: number; readonly refs: number }
  | { readonly kind: "extend"; readonly length: number; readonly tag: number };

function apply(set: SegmentSet, operation: Operation): void {
  const { tag, length } = operation;
  if (operation.kind === "extend") {
    set.extend(Math.min(length, CAPACITY - set.size), tag);
    return;
  }
  const at = Math.min(operation.at, set.size - 1);
  if (operation.kind === "assign") set.assign(at, Math.min(set.size, at + length), tag, operation.refs, 0);
  else set.replace(at, Math.min(set.endOf(at), at + length), tag, operation.refs, 0);
}

function valuesOf(set: SegmentSet): string[] {
  const values: string[] = [];
  if (set.size === 0) return values;
  set.visit(0, set.size, (start, end, tag, refs, group) => {
    for (let key = start; key < end; key++) values.push(`${tag}/${refs}/${group}`);
  });
  return values;
}

const tag = fc.nat({ max: 5 });
const ofRange = <Kind extends string>(kind: Kind) =>
  fc.record({
    kind: fc.constant(kind),
    at: fc.nat({ max: CAPACITY }),
    length: fc.integer({ min: 1, max: 200 }),
    tag,
    // The large ones stand beside the value's word.
    refs: fc.constantFrom(0, 1, 2, 40_000, 50_000),
  });
const operation: fc.Arbitrary<Operation> = fc.oneof(ofRange("assign" as const), ofRange("replace" as const));
const withExtend = fc.oneof(
  { arbitrary: operation, weight: 8 },
  {
    arbitrary: fc.record({ kind: fc.constant("extend" as const), length: fc.integer({ min: 32, max: 200 }), tag }),
    weight: 1,
  },
);

test("after a death at any store of an operation the repaired set is whole, each key as before or after", () => {
  let deaths = 0;
  fc.assert(
    fc.property(fc.array(withExtend, { minLength: 1, maxLength: 40 }), (operations) => {
      const { values, owners, bits, summary } = segmentWords(LAYOUT, CAPACITY);
      const sizes = [values, owners, bits, ...Array.from({ length: CLASSES }, () => summary)];
      const arrays = sizes.map((size) => new Int32Array(size));
      const log: Store[] = [];
      const set = new SegmentSet(LAYOUT, recording(arrays, log));
      set.extend(1500, 0);
      for (const each of operations) {
        const copies = arrays.map((array) => array.slice());
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
          const survivor = new SegmentSet(LAYOUT, tablesOf(copies.map((array) => array.slice())));
          // The size counts as grown only when all else is done.
          survivor.size = sizeBefore;
          rebuildTables(survivor);
          checkInvariants(survivor);
          const values = valuesOf(survivor);
          // An assign may leave the value of its first key in all of its keys.
          const first = each.kind === "assign" ? before[Math.min(each.at, sizeBefore - 1)] : undefined;
          const torn = values.findIndex((value, key) => value !== before[key] && value !== after[key] && value !== first);
          // Between the stores of one record nothing can end a thread: only there may tag and refs be of two values.
          if (torn >= 0 && !isInsideRecord(stores, count)) {
            throw new Error(`Key ${torn} is ${values[torn]}, was ${before[torn]}, should be ${after[torn]} (store ${count})`);
          }
          deaths++;
        }
      }
    }),
    { numRuns: 30 },
  );
  expect(deaths).toBeGreaterThan(1000);
});

/** True if the next store belongs to the same run's value as the last one: its owner comes first, then its word. */
function isInsideRecord(stores: readonly Store[], count: number): boolean {
  const last = stores[count - 1];
  const next = stores[count];
  return last !== undefined && next !== undefined && last.table === 1 && next.table <= 1;
}

test("tables without a run at key 0 cannot be repaired", () => {
  const set = SegmentSet.create(CAPACITY, CLASSES);
  set.extend(100, 0);
  set.tables.bits.fill(0);
  expect(() => rebuildTables(set)).toThrow("No run starts");
});
