/** SegmentSet against a naive array with one entry per key, compared in full after every step. */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { MAX_TAG, SegmentSet } from "../../src/segment/index.ts";
import { checkInvariants } from "../../src/segment/invariants.ts";
import { CLASS_MASK } from "../../src/segment/value.ts";

const CLASSES = 3;

interface Value {
  tag: number;
  refs: number;
  group: number;
}

/** One entry for each key. Runs are found by search. */
class NaiveSet {
  readonly keys: Value[] = [];

  runs(): { start: number; end: number; value: Value }[] {
    const runs: { start: number; end: number; value: Value }[] = [];
    this.keys.forEach((value, key) => {
      const last = runs.at(-1);
      if (last !== undefined && JSON.stringify(last.value) === JSON.stringify(value))
        last.end = key + 1;
      else runs.push({ start: key, end: key + 1, value });
    });
    return runs;
  }

  fit(cls: number, count: number, last: boolean): number {
    const fitting = this.runs().filter(
      (run) => (run.value.tag & CLASS_MASK) === cls && run.end - run.start >= count,
    );
    return (last ? fitting.at(-1) : fitting[0])?.start ?? -1;
  }
}

function compare(set: SegmentSet, naive: NaiveSet): void {
  checkInvariants(set);
  // The run sought last is known as it is now, or not at all.
  if (set.runEnd > 0)
    expect([set.runStart, set.runEnd]).toEqual([
      set.startOf(set.runStart),
      set.endOf(set.runStart),
    ]);
  expect(set.size).toBe(naive.keys.length);
  const found: { start: number; end: number; value: Value }[] = [];
  if (set.size > 0)
    set.visit(0, set.size, (start, end, tag, refs, group) =>
      found.push({ start, end, value: { tag, refs, group } }),
    );
  expect(found).toEqual(naive.runs());
}

// Values on both sides of the limit of a byte: tags below 64 with refs of 0 to 3, group 0.
const valueArbitrary = fc.record({
  tag: fc.oneof(
    { arbitrary: fc.nat({ max: 5 }), weight: 4 },
    { arbitrary: fc.constantFrom(17, 47, 48, 63, 64, 65, MAX_TAG), weight: 1 },
  ),
  refs: fc.oneof(
    fc.nat({ max: 5 }),
    fc.constantFrom(0, 1, 32_767, 2 ** 27, 2 ** 31 - 1, -1, -(2 ** 31)),
  ),
  group: fc.constantFrom(0, 0, 0, 1, -1),
});
const stepArbitrary = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      op: fc.constant("addRefs" as const),
      at: fc.nat(),
      count: fc.integer({ min: 1, max: 90 }),
      by: fc.constantFrom(1, -1),
      undone: fc.boolean(),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      op: fc.constant("extend" as const),
      count: fc.integer({ min: 1, max: 700 }),
      value: valueArbitrary,
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      op: fc.constant("assign" as const),
      at: fc.nat(),
      count: fc.integer({ min: 1, max: 90 }),
      value: valueArbitrary,
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      op: fc.constant("assign" as const),
      at: fc.nat(),
      count: fc.integer({ min: 100, max: 3000 }),
      value: valueArbitrary,
    }),
  },
);

for (const shared of [false, true]) {
  test(`SegmentSet matches the naive set (${shared ? "SharedArrayBuffer" : "ArrayBuffer"})`, () => {
    fc.assert(
      fc.property(
        fc.array(stepArbitrary, { minLength: 1, maxLength: 40 }),
        fc.array(fc.nat(), { minLength: 8, maxLength: 8 }),
        (steps, probes) => {
          const capacity = 4001;
          const bytes = SegmentSet.byteLength(capacity, CLASSES);
          const set = SegmentSet.create(
            capacity,
            CLASSES,
            shared ? new SharedArrayBuffer(bytes) : undefined,
          );
          const naive = new NaiveSet();
          for (const step of steps) {
            if (naive.keys.length > 0) set.seek(probes[0]! % naive.keys.length);
            if (step.op === "addRefs") {
              if (naive.keys.length === 0) continue;
              const start = step.at % naive.keys.length;
              for (const by of step.undone ? [step.by, -step.by] : [step.by]) {
                set.seek(start);
                const { runStart: run, runEnd } = set;
                expect([run, runEnd]).toEqual([set.startOf(start), set.endOf(start)]);
                const end = Math.min(start + step.count, runEnd);
                set.addRefsIn(run, runEnd, start, end, by);
                const value = naive.keys[start]!;
                naive.keys.fill({ ...value, refs: (value.refs + by) | 0 }, start, end);
                compare(set, naive);
              }
              continue;
            }
            const { tag, refs, group } = step.value;
            if (step.op === "extend" || naive.keys.length === 0) {
              const count = Math.min(step.count, capacity - naive.keys.length);
              if (count === 0) continue;
              set.extend(count, tag, refs, group);
              for (let i = 0; i < count; i++) naive.keys.push(step.value);
            } else {
              const start = step.at % naive.keys.length;
              const end = Math.min(start + step.count, naive.keys.length);
              set.assign(start, end, tag, refs, group);
              naive.keys.fill(step.value, start, end);
            }
            compare(set, naive);
          }
          for (const probe of probes) {
            if (naive.keys.length === 0) break;
            const key = probe % naive.keys.length;
            set.seek(key);
            expect([set.runStart, set.runEnd]).toEqual([set.startOf(key), set.endOf(key)]);
            expect(set.startOf(key)).toBe(
              naive.runs().find((run) => run.start <= key && key < run.end)!.start,
            );
            for (let cls = 0; cls < CLASSES; cls++) {
              const count = 1 + (probe % 100);
              expect(set.firstFit(cls, count)).toBe(naive.fit(cls, count, false));
              expect(set.lastFit(cls, count)).toBe(naive.fit(cls, count, true));
            }
          }
        },
      ),
      { numRuns: 60 },
    );
  });
}

test("extendWith makes the same tables as single calls of extend and assign", () => {
  const rowArbitrary = fc.record({
    gap: fc.oneof(fc.constant(0), fc.nat({ max: 40 }), fc.nat({ max: 400 })),
    length: fc.oneof(fc.integer({ min: 1, max: 5 }), fc.integer({ min: 1, max: 300 })),
    value: valueArbitrary,
  });
  fc.assert(
    fc.property(
      fc.array(rowArbitrary, { maxLength: 60 }),
      fc.array(fc.record({ count: fc.integer({ min: 1, max: 700 }), value: valueArbitrary }), {
        maxLength: 2,
      }),
      fc.nat({ max: 200 }),
      fc.nat({ max: 5 }),
      fc.boolean(),
      (rows, before, tail, tag, cut) => {
        const capacity = 40_000;
        const [one, all] = [
          SegmentSet.create(capacity, CLASSES),
          SegmentSet.create(capacity, CLASSES),
        ];
        for (const set of [one, all])
          for (const { count, value } of before)
            set.extend(count, value.tag, value.refs, value.group);
        const runs = {
          start: [] as number[],
          length: [] as number[],
          tag: [] as number[],
          refs: [] as number[],
          group: [] as number[],
        };
        let end = one.size;
        for (const { gap, length, value } of rows) {
          runs.start.push(end + gap);
          runs.length.push(length);
          for (const key of ["tag", "refs", "group"] as const) runs[key].push(value[key]);
          end += gap + length;
        }
        // In one piece, or in two that meet where a row begins.
        const pieces = [end + tail + 1];
        const middle = runs.start[rows.length >> 1];
        if (cut && middle !== undefined && middle > one.size) pieces.unshift(middle);
        let row = 0;
        for (const piece of pieces) {
          const first = row;
          const count = piece - one.size;
          // The run may continue where this one ends.
          if (all.size > 0) all.seek(all.size - 1);
          row = all.extendWith(count, tag, runs, first);
          if (all.runEnd > 0) expect(all.runEnd).toBe(all.endOf(all.runStart));
          one.extend(count, tag);
          for (let i = first; i < row; i++) {
            const start = runs.start[i]!;
            one.assign(start, start + runs.length[i]!, runs.tag[i]!, runs.refs[i]!, runs.group[i]!);
          }
        }
        expect(row).toBe(rows.length);
        expect(all.size).toBe(one.size);
        checkInvariants(all);
        // Values of keys where no run starts are stale, and may differ. Nothing else may.
        expect(all.tables.bits).toEqual(one.tables.bits);
        for (let cls = 0; cls < all.tables.classes; cls++)
          expect(all.tables.summary(cls)).toEqual(one.tables.summary(cls));
        expect([...all]).toEqual([...one]);
      },
    ),
    { numRuns: 200 },
  );
});

test("assign keeps every value, also at a cut, and joins only equal ones", () => {
  const tagArbitrary = fc.oneof(fc.nat({ max: 80 }), fc.nat({ max: MAX_TAG }));
  const integer = fc.oneof(
    fc.integer({ min: -2, max: 9 }),
    fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }),
  );
  fc.assert(
    fc.property(tagArbitrary, integer, fc.oneof(fc.constant(0), integer), (tag, refs, group) => {
      const set = SegmentSet.create(100, CLASSES);
      set.extend(90, tag, refs, group);
      // The middle gets a value that differs in one bit from the one around it, and then that value
      // again.
      const others = [
        [tag ^ 1, refs, group],
        [tag ^ 16, refs, group],
        [tag ^ 64, refs, group],
        [tag ^ 0x8000, refs, group],
      ];
      others.push(
        [tag, refs ^ 1, group],
        [tag, refs ^ 4, group],
        [tag, refs ^ (1 << 31), group],
        [tag, refs, group ^ 1],
      );
      for (const [otherTag, otherRefs, otherGroup] of others as [number, number, number][]) {
        set.assign(40, 50, otherTag, otherRefs, otherGroup);
        checkInvariants(set);
        expect([...set]).toEqual([
          { start: 0, end: 40, tag, refs, group },
          { start: 40, end: 50, tag: otherTag, refs: otherRefs, group: otherGroup },
          { start: 50, end: 90, tag, refs, group },
        ]);
        set.assign(40, 50, tag, refs, group);
        checkInvariants(set);
        expect([...set]).toEqual([{ start: 0, end: 90, tag, refs, group }]);
      }
    }),
    { numRuns: 500 },
  );
});

test("startOf crosses long runs over several bit levels", () => {
  const capacity = 2 ** 22;
  const set = SegmentSet.create(capacity, 1);
  set.extend(capacity, 0);
  expect(set.startOf(capacity - 1)).toBe(0);
  set.assign(33, 34, 1);
  expect(set.startOf(capacity - 1)).toBe(34);
  set.assign(capacity - 40, capacity - 39, 1);
  expect(set.startOf(capacity - 41)).toBe(34);
  expect(set.startOf(capacity - 1)).toBe(capacity - 39);
  expect(set.firstFit(0, 34)).toBe(34);
  expect(set.lastFit(0, 39)).toBe(capacity - 39);
  expect(set.lastFit(0, 40)).toBe(34);
});

test("SegmentSet refuses bad sizes and ranges with the value named, and changes nothing", () => {
  const set = SegmentSet.create(100, 1);
  set.extend(50, 0);
  expect(() => set.extend(51, 0)).toThrow("50 keys by 51, the capacity is 100");
  expect(() =>
    set.extendWith(51, 0, { start: [], length: [], tag: [], refs: [], group: [] }, 0),
  ).toThrow("50 keys by 51");
  expect(() => set.assign(10, 10, 1)).toThrow("[10, 10)");
  expect(() => set.assign(10, 51, 1)).toThrow("[10, 51)");
  expect(() => set.assign(0, 1.5, 1)).toThrow("[0, 1.5)");
  for (const tag of [-1, 0.5, Number.NaN, MAX_TAG + 1]) {
    expect(() => set.assign(0, 1, tag)).toThrow(`got ${tag}`);
    expect(() => set.extend(1, tag)).toThrow(`got ${tag}`);
  }
  expect(() => set.extend(1.5, 0)).toThrow("50 keys by 1.5");
  expect(() => set.segmentAt(0.5)).toThrow("got 0.5");
  checkInvariants(set);
  expect(() => SegmentSet.create(0, 1)).toThrow("got 0");
  expect(() => SegmentSet.create(1.5, 1)).toThrow("got 1.5");
  checkInvariants(set);
  expect(set.size).toBe(50);
});

test("an operation touches no more words with 100,000 runs than with 100", () => {
  // The tables are fixed, and the depth bounds the walk. So the depth must not grow with the runs.
  const depth = (capacity: number) => {
    const { bitBases, summaryBases } = SegmentSet.create(capacity, 1).layout;
    return bitBases.length + summaryBases.length;
  };
  expect(depth(2 ** 26)).toBeLessThanOrEqual(depth(2 ** 18) + 5);
});
