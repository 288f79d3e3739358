/** The tables of a load, compared with what a pass page by page enters. */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { LoadWord, PAGES_PER_UNIT } from "../../src/load/load-tables.ts";
import { contiguousMap, stateOf } from "./support/dense-state.ts";

type Extent = readonly [start: number, length: number];

/** Extents with gaps between them. Many are whole units, and some cover several. */
const extentsOf = fc
  .array(
    fc.record({
      gap: fc.constantFrom(0, 0, 1, 31, PAGES_PER_UNIT - 1, PAGES_PER_UNIT),
      toNextUnit: fc.boolean(),
      length: fc.constantFrom(1, 40, PAGES_PER_UNIT - 1, PAGES_PER_UNIT, 2 * PAGES_PER_UNIT + 3),
    }),
    { minLength: 1, maxLength: 10 },
  )
  .map((steps) => {
    const extents: Extent[] = [];
    let page = 0;
    for (const { gap, toNextUnit, length } of steps) {
      page += gap;
      if (toNextUnit) page = Math.ceil(page / PAGES_PER_UNIT) * PAGES_PER_UNIT;
      extents.push([page, length]);
      page += length;
    }
    return extents;
  });

interface NaiveUnit {
  pending: number;
  firstExtent: number;
  /** The rank of that extent's first page, which may be in an earlier unit. */
  firstRank: number;
}

/** Units with contents by index, and the ranks of pages with contents. */
function naiveTables(extents: readonly Extent[]) {
  const units = new Map<number, NaiveUnit>();
  const ranks = new Map<number, number>();
  extents.forEach(([start, length], extent) => {
    const firstRank = ranks.size;
    for (let page = start; page < start + length; page++) {
      const unit = Math.floor(page / PAGES_PER_UNIT);
      const found = units.get(unit) ?? { pending: 0, firstExtent: extent, firstRank };
      found.pending++;
      units.set(unit, found);
      ranks.set(page, ranks.size);
    }
  });
  return { units, ranks };
}

const bitOf = (bits: Int32Array, page: number) => (bits[page >>> 5]! >>> (page & 31)) & 1;

test("createLoad enters each page of each extent", () => {
  fc.assert(
    fc.property(extentsOf, (extents) => {
      const { tables, words, unitCount } = stateOf(contiguousMap(extents));
      const { units, ranks } = naiveTables(extents);
      expect(words[LoadWord.PendingPages]).toBe(ranks.size);
      for (let unit = 0; unit < unitCount; unit++) {
        const { pending = 0, firstExtent = -1, firstRank } = units.get(unit) ?? {};
        expect([unit, tables.unitPending[unit]]).toEqual([unit, pending]);
        expect([unit, tables.unitFirstExtent[unit]]).toEqual([unit, firstExtent]);
        if (firstRank !== undefined) expect(tables.unitFirstRank[unit]).toBe(firstRank);
      }
      let wrong = 0;
      for (let page = 0; page < unitCount * PAGES_PER_UNIT; page++) {
        const expected = ranks.has(page) ? 0 : 1;
        if (bitOf(tables.started, page) !== expected) wrong++;
        if (bitOf(tables.loaded, page) !== expected) wrong++;
      }
      expect(wrong).toBe(0);
    }),
    { numRuns: 300 },
  );
});

test("skip counts the pages of each unit, whole or not", () => {
  const partOf = fc.record({ extent: fc.nat(9), from: fc.nat(1100), to: fc.nat(1100) });
  fc.assert(
    fc.property(extentsOf, partOf, (extents, { extent, from, to }) => {
      const state = stateOf(contiguousMap(extents));
      const { units } = naiveTables(extents);
      const [start, length] = extents[extent % extents.length]!;
      const bounds = [start + (from % length), start + (to % length)];
      const first = Math.min(...bounds);
      const end = Math.max(...bounds) + 1;
      state.skip(first, end);
      for (let page = first; page < end; page++)
        units.get(Math.floor(page / PAGES_PER_UNIT))!.pending--;
      for (const [unit, { pending }] of units)
        expect([unit, state.tables.unitPending[unit]]).toEqual([unit, pending]);
      expect(state.isLoaded(first, end)).toBe(true);
      expect(state.words[LoadWord.MappedPages]).toBe(end - first);
    }),
    { numRuns: 1000 },
  );
});
