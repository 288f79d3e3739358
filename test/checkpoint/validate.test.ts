/** The checks of extents against frames and runs, compared with naive ones, page by page. */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { SUB_RELEASED, USED } from "../../src/allocator/states.ts";
import { checkExtents, checkExtentsAreUsed, checkFrames } from "../../src/checkpoint/validate.ts";
import type { PageMap } from "../../src/checkpoint/page-map.ts";
import { CodecId } from "../../src/codec/codec.ts";
import { CorruptCheckpointError } from "../../src/errors/errors.ts";
import { PAGE_SIZE, PAGES_PER_HUGE_PAGE as PAGES_PER_UNIT } from "../../src/pages/units.ts";

interface Row {
  readonly start: number;
  readonly length: number;
  readonly frame: number;
  readonly framePage: number;
}

const column = (rows: readonly number[]) => Uint32Array.from(rows);

function mapOf(extents: readonly Row[], framePages: readonly number[]): PageMap {
  return {
    extents: {
      start: column(extents.map(({ start }) => start)),
      length: column(extents.map(({ length }) => length)),
      frame: column(extents.map(({ frame }) => frame)),
      framePage: column(extents.map(({ framePage }) => framePage)),
    },
    frames: {
      content: column(framePages.map(() => 1)),
      codec: column(framePages.map(() => CodecId.Raw)),
      offset: Float64Array.from(framePages, (_, i) => i * PAGES_PER_UNIT * PAGE_SIZE),
      storedBytes: Float64Array.from(framePages, (pages) => pages * PAGE_SIZE),
      pages: column(framePages),
    },
  };
}

/** The pages of the extents; null: a check must refuse them. */
function naivePages(extents: readonly Row[], framePages: readonly number[]): number | null {
  const units = new Map<number, number>();
  const next = framePages.map(() => 0);
  let pages = 0;
  let previous = -1;
  for (const { start, length, frame, framePage } of extents) {
    if (length === 0 || frame >= framePages.length) return null;
    for (let i = 0; i < length; i++) {
      const page = start + i;
      const unit = Math.floor(page / PAGES_PER_UNIT);
      if (page <= previous || (units.get(frame) ?? unit) !== unit) return null;
      if (framePage + i < next[frame]! || framePage + i >= framePages[frame]!) return null;
      units.set(frame, unit);
      next[frame] = framePage + i + 1;
      previous = page;
      pages++;
    }
  }
  return units.size === framePages.length ? pages : null;
}

/** The result of a check; null if it refuses. */
function outcomeOf<T>(check: () => T): T | null {
  try {
    return check();
  } catch (error) {
    if (error instanceof CorruptCheckpointError) return null;
    throw error;
  }
}

/** Extents as a save makes them. Each gap is one of pages without contents. */
const extentsOf = fc
  .array(
    fc.record({
      gap: fc.nat(3),
      length: fc.integer({ min: 1, max: 4 }),
      skipped: fc.nat(1),
      goesOn: fc.boolean(),
    }),
    { minLength: 1, maxLength: 12 },
  )
  .map((steps) => {
    const rows: Row[] = [];
    const framePages: number[] = [];
    // Close to a unit's end, so that some frames are of the next unit.
    let page = PAGES_PER_UNIT - 20;
    for (const { gap, length, skipped, goesOn } of steps) {
      let start = page + gap;
      const isNext = start % PAGES_PER_UNIT > (start + length - 1) % PAGES_PER_UNIT;
      if (isNext) start = Math.ceil(start / PAGES_PER_UNIT) * PAGES_PER_UNIT;
      const last = rows.at(-1);
      const unit = Math.floor(start / PAGES_PER_UNIT);
      const isSame = last !== undefined && Math.floor(last.start / PAGES_PER_UNIT) === unit;
      if (!goesOn || !isSame) framePages.push(0);
      const frame = framePages.length - 1;
      const framePage = framePages[frame]! + skipped;
      rows.push({ start, length, frame, framePage });
      framePages[frame] = framePage + length;
      page = start + length;
    }
    // Frames may have pages that no extent takes.
    return { rows, framePages: framePages.map((pages, i) => pages + (i % 3)) };
  });

test("checkExtents agrees with a check page by page", () => {
  const change = fc.record({
    row: fc.nat(11),
    field: fc.constantFrom("start", "length", "frame", "framePage"),
    by: fc.integer({ min: -3, max: 3 }),
  });
  fc.assert(
    fc.property(extentsOf, fc.option(change, { freq: 5 }), ({ rows, framePages }, changed) => {
      const extents = rows.map((row, i) =>
        changed === null || changed.row % rows.length !== i
          ? row
          : { ...row, [changed.field]: Math.max(0, row[changed.field] + changed.by) },
      );
      const expected = naivePages(extents, framePages);
      if (changed === null) expect(expected).not.toBeNull();
      expect(outcomeOf(() => checkExtents(mapOf(extents, framePages), "meta"))).toBe(expected);
    }),
    { numRuns: 2000 },
  );
});

test("checkExtents agrees with a check page by page for frames in any order", () => {
  const orderOf = fc.array(fc.nat(11), { minLength: 12, maxLength: 12 });
  fc.assert(
    fc.property(extentsOf, orderOf, ({ rows, framePages }, order) => {
      const extents = rows.map((row) => ({ ...row, frame: order[row.frame]! % framePages.length }));
      const pages = framePages.map(() => 2 * PAGES_PER_UNIT);
      const expected = naivePages(extents, pages);
      expect(outcomeOf(() => checkExtents(mapOf(extents, pages), "meta"))).toBe(expected);
    }),
    { numRuns: 2000 },
  );
});

test("checkFrames agrees with a check frame by frame", () => {
  const sizeBytes = 40 * PAGE_SIZE;
  const pageFiles = [1n, 2n].map((id) => ({ id, sizeBytes }));
  const good = new Array<null>(12).fill(null);
  const frameOf = fc.record({
    content: fc.constantFrom(1, 1, 1, 1, 2, 2, 3),
    codec: fc.constantFrom(0, 0, 0, 0, CodecId.Lz4, 3),
    gap: fc.constantFrom(0, 0, 0, PAGE_SIZE, 8, -PAGE_SIZE, NaN),
    pages: fc.constantFrom(1, 2, 2, 2, 2, 0),
    bytes: fc.constantFrom(...good, PAGE_SIZE, 2 * PAGE_SIZE, 100, 100.5, -1, 0, NaN),
  });
  let accepted = 0;
  fc.assert(
    fc.property(fc.array(frameOf, { maxLength: 4 }), (drawn) => {
      const steps = drawn.map((step) => ({
        ...step,
        stored: step.bytes ?? (step.codec === CodecId.Raw ? step.pages * PAGE_SIZE : 100),
      }));
      const ends = [0, 0, 0, 0];
      let previous = 1;
      let isGood = true;
      const offsets = steps.map(({ content, codec, gap, pages, stored }) => {
        const offset = ends[content]! + gap;
        const end = offset + stored;
        const isCompressed = Number.isInteger(stored) && stored > 0 && stored < pages * PAGE_SIZE;
        isGood &&= codec === CodecId.Raw ? stored === pages * PAGE_SIZE : isCompressed;
        isGood &&= codec !== 3 && content !== 3 && pages > 0 && content >= previous;
        isGood &&= offset >= ends[content]! && offset % PAGE_SIZE === 0 && end <= sizeBytes;
        ends[content] = codec === CodecId.Raw ? end : Math.ceil(end / PAGE_SIZE) * PAGE_SIZE;
        previous = content;
        return offset;
      });
      const map = mapOf([], []);
      const frames = {
        content: column(steps.map(({ content }) => content)),
        codec: column(steps.map(({ codec }) => codec)),
        offset: Float64Array.from(offsets),
        storedBytes: Float64Array.from(steps, ({ stored }) => stored),
        pages: column(steps.map(({ pages }) => pages)),
      };
      const outcome = outcomeOf(() => checkFrames({ ...map, frames }, pageFiles, "meta"));
      expect(outcome === undefined).toBe(isGood);
      if (isGood && steps.length > 1) accepted++;
    }),
    { numRuns: 5000 },
  );
  expect(accepted).toBeGreaterThan(10);
});

test("checkExtents refuses a frame without extents", () => {
  const rows = [{ start: 0, length: 2, frame: 0, framePage: 0 }];
  expect(() => checkExtents(mapOf(rows, [2, 1]), "meta")).toThrow("1 frames have no extent");
});

test("checkExtents refuses a frame that continues in a later unit", () => {
  const rows = [
    { start: 0, length: 2, frame: 0, framePage: 0 },
    { start: PAGES_PER_UNIT, length: 2, frame: 1, framePage: 0 },
    { start: PAGES_PER_UNIT + 4, length: 2, frame: 0, framePage: 2 },
  ];
  expect(() => checkExtents(mapOf(rows, [4, 2]), "meta")).toThrow("not in the unit of frame 0");
});

test("checkExtentsAreUsed agrees with a check page by page", () => {
  const runsOf = fc.array(
    fc.record({ gap: fc.nat(2), length: fc.integer({ min: 1, max: 9 }), isUsed: fc.boolean() }),
    { maxLength: 10 },
  );
  const extentsOfGaps = fc.array(
    fc.record({ gap: fc.nat(4), length: fc.integer({ min: 1, max: 4 }) }),
    { maxLength: 16 },
  );
  const place = (rows: readonly { readonly gap: number; readonly length: number }[]) => {
    let page = 0;
    return rows.map(({ gap, length }) => {
      const start = page + gap;
      page = start + length;
      return { start, length };
    });
  };
  fc.assert(
    fc.property(runsOf, extentsOfGaps, (runs, gaps) => {
      const placed = place(runs);
      const used = new Set(
        placed.flatMap(({ start, length }, i) =>
          runs[i]!.isUsed ? Array.from({ length }, (_, at) => start + at) : [],
        ),
      );
      const extents = place(gaps);
      const rows = extents.map((extent) => ({ ...extent, frame: 0, framePage: 0 }));
      const isUsed = extents.every(({ start, length }) =>
        Array.from({ length }, (_, at) => used.has(start + at)).every(Boolean),
      );
      const zeros = column(runs.map(() => 0));
      const file = {
        pageMap: mapOf(rows, [1]),
        runs: {
          start: column(placed.map(({ start }) => start)),
          length: column(placed.map(({ length }) => length)),
          state: column(runs.map((run) => (run.isUsed ? USED : SUB_RELEASED))),
          refs: zeros,
          kind: zeros,
          group: zeros,
        },
      };
      const outcome = outcomeOf(() => checkExtentsAreUsed(file, "meta"));
      expect(outcome === undefined).toBe(isUsed);
    }),
    { numRuns: 5000 },
  );
});
