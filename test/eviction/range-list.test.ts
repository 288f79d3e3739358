/** RangeList against a set of numbers. */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { RangeList } from "../../src/eviction/range-list.ts";

const bound = fc.integer({ min: 0, max: 40 });
const operation = fc.record({
  op: fc.constantFrom("add" as const, "remove" as const, "takeLast" as const),
  a: bound,
  b: bound,
});

/** The maximal runs of a set, ordered. */
function runsOf(numbers: ReadonlySet<number>): { start: number; end: number }[] {
  const runs: { start: number; end: number }[] = [];
  for (const number of [...numbers].sort((a, b) => a - b)) {
    const last = runs.at(-1);
    if (last?.end === number) last.end++;
    else runs.push({ start: number, end: number + 1 });
  }
  return runs;
}

test("RangeList is the set of its numbers, as maximal runs", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 6 }),
      fc.array(operation, { maxLength: 60 }),
      (blockLength, operations) => {
        const list = new RangeList(blockLength);
        const numbers = new Set<number>();
        for (const { op, a, b } of operations) {
          const [start, end] = [Math.min(a, b), Math.max(a, b)];
          if (op === "takeLast") {
            const last = runsOf(numbers).at(-1) ?? null;
            expect(list.takeLast()).toEqual(last);
            for (let number = last?.start ?? 0; number < (last?.end ?? 0); number++)
              numbers.delete(number);
            continue;
          }
          list[op](start, end);
          for (let number = start; number < end; number++)
            numbers[op === "add" ? "add" : "delete"](number);
          expect(list.isEmpty).toBe(numbers.size === 0);
        }
        const rest = runsOf(numbers).reverse();
        for (const run of rest) expect(list.takeLast()).toEqual(run);
        expect(list.takeLast()).toBeNull();
      },
    ),
    { numRuns: 300 },
  );
});

test("RangeList accepts offsets up to the largest safe integer", () => {
  const list = new RangeList();
  list.add(Number.MAX_SAFE_INTEGER - 1, Number.MAX_SAFE_INTEGER);
  list.add(0, Number.MAX_SAFE_INTEGER - 1);
  expect(list.takeLast()).toEqual({ start: 0, end: Number.MAX_SAFE_INTEGER });
});
