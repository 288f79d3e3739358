import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  coalesce,
  MAX_TRANSFER_BYTES,
  type Operations,
  type Pieces,
} from "../../src/aio/coalesce.ts";

type Piece = readonly [address: number, offset: number, lengthBytes: number];

function toPieces(list: readonly Piece[]): Pieces {
  return {
    addresses: Float64Array.from(list, (piece) => piece[0]),
    offsets: Float64Array.from(list, (piece) => piece[1]),
    lengths: Float64Array.from(list, (piece) => piece[2]),
    count: list.length,
  };
}

/** Operations as nested lists: [offset, [address, length][]]. */
function toLists(operations: Operations): [number, [number, number][]][] {
  return Array.from({ length: operations.count }, (_, op) => {
    const segments: [number, number][] = [];
    for (let s = operations.firstSegment[op]!; s < operations.firstSegment[op + 1]!; s++) {
      segments.push([operations.iovecs[2 * s]!, operations.iovecs[2 * s + 1]!]);
    }
    return [operations.offsets[op]!, segments];
  });
}

const table: {
  name: string;
  pieces: Piece[];
  limits: { maxBytes: number; maxIovecs?: number };
  want: [number, [number, number][]][];
}[] = [
  { name: "nothing", pieces: [], limits: { maxBytes: 10 }, want: [] },
  { name: "empty pieces", pieces: [[100, 0, 0]], limits: { maxBytes: 10 }, want: [] },
  {
    name: "adjacent in both: one segment",
    pieces: [
      [100, 0, 4],
      [104, 4, 4],
    ],
    limits: { maxBytes: 10 },
    want: [[0, [[100, 8]]]],
  },
  {
    name: "adjacent in the file: one vector",
    pieces: [
      [100, 0, 4],
      [200, 4, 4],
    ],
    limits: { maxBytes: 10 },
    want: [
      [
        0,
        [
          [100, 4],
          [200, 4],
        ],
      ],
    ],
  },
  {
    name: "adjacent in memory only: two",
    pieces: [
      [100, 0, 4],
      [104, 8, 4],
    ],
    limits: { maxBytes: 10 },
    want: [
      [0, [[100, 4]]],
      [8, [[104, 4]]],
    ],
  },
  {
    name: "too long: cut",
    pieces: [[100, 0, 25]],
    limits: { maxBytes: 10 },
    want: [
      [0, [[100, 10]]],
      [10, [[110, 10]]],
      [20, [[120, 5]]],
    ],
  },
  {
    name: "a cut goes on with the next piece",
    pieces: [
      [100, 0, 6],
      [200, 6, 6],
    ],
    limits: { maxBytes: 10 },
    want: [
      [
        0,
        [
          [100, 6],
          [200, 4],
        ],
      ],
      [10, [[204, 2]]],
    ],
  },
  {
    name: "too many segments",
    pieces: [
      [1, 0, 1],
      [5, 1, 1],
      [9, 2, 1],
    ],
    limits: { maxBytes: 10, maxIovecs: 2 },
    want: [
      [
        0,
        [
          [1, 1],
          [5, 1],
        ],
      ],
      [2, [[9, 1]]],
    ],
  },
  {
    name: "a full vector still takes what extends its last segment",
    pieces: [
      [1, 0, 1],
      [5, 1, 1],
      [6, 2, 1],
    ],
    limits: { maxBytes: 10, maxIovecs: 2 },
    want: [
      [
        0,
        [
          [1, 1],
          [5, 2],
        ],
      ],
    ],
  },
];

describe("coalesce", () => {
  for (const { name, pieces, limits, want } of table) {
    test(name, () => expect(toLists(coalesce(toPieces(pieces), limits))).toEqual(want));
  }

  test("moves every byte to its place, in as few operations as a greedy pass", () => {
    // Small numbers, so that adjacency in memory and file is common.
    const piece = fc.record({
      gap: fc.constantFrom(0, 0, 0, 1, 5),
      jump: fc.constantFrom(0, 0, 1, 7, 40),
      length: fc.nat(9),
    });
    fc.assert(
      fc.property(
        fc.array(piece, { maxLength: 40 }),
        fc.integer({ min: 1, max: 24 }),
        fc.integer({ min: 1, max: 5 }),
        (steps, maxBytes, maxIovecs) => {
          let address = 1000;
          let offset = 0;
          const pieces: Piece[] = steps.map(({ gap, jump, length }) => {
            address += jump;
            offset += gap;
            const at: Piece = [address, offset, length];
            address += length;
            offset += length;
            return at;
          });
          const lists = toLists(coalesce(toPieces(pieces), { maxBytes, maxIovecs }));

          const wanted = pieces.flatMap(([a, o, n]) =>
            Array.from({ length: n }, (_, i) => `${o + i}@${a + i}`),
          );
          const moved = lists.flatMap(([o, segments]) => {
            let at = o;
            return segments.flatMap(([a, n]) =>
              Array.from({ length: n }, (_, i) => `${at++}@${a + i}`),
            );
          });
          expect(moved).toEqual(wanted);

          lists.forEach(([o, segments], op) => {
            const bytes = segments.reduce((sum, [, n]) => sum + n, 0);
            expect(bytes).toBeLessThanOrEqual(maxBytes);
            expect(segments.length).toBeLessThanOrEqual(maxIovecs);
            for (let s = 1; s < segments.length; s++)
              expect(segments[s - 1]![0] + segments[s - 1]![1]).not.toBe(segments[s]![0]);
            const next = lists[op + 1];
            if (next === undefined || next[0] !== o + bytes || bytes === maxBytes) return;
            // It had room in bytes and the file continued, so it had no segment left.
            expect(segments.length).toBe(maxIovecs);
            expect(next[1][0]![0]).not.toBe(segments.at(-1)![0] + segments.at(-1)![1]);
          });
        },
      ),
    );
  });

  test("keeps addresses above 2^32 and offsets above 4 GiB exact", () => {
    const address = 2 ** 47 - 4096;
    const offset = 2 ** 42 + 4096;
    expect(toLists(coalesce(toPieces([[address, offset, 4096]]), { maxBytes: 1 << 20 }))).toEqual([
      [offset, [[address, 4096]]],
    ]);
  });

  test("refuses limits and pieces that are out of range", () => {
    for (const maxBytes of [0, -1, 1.5, Number.NaN, MAX_TRANSFER_BYTES + 1])
      expect(() => coalesce(toPieces([]), { maxBytes })).toThrow(RangeError);
    for (const maxIovecs of [0, 1025])
      expect(() => coalesce(toPieces([]), { maxBytes: 1, maxIovecs })).toThrow(RangeError);
    for (const length of [-1, 0.5, Number.NaN, 2 ** 60])
      expect(() => coalesce(toPieces([[1, 0, length]]), { maxBytes: 8 })).toThrow(
        "pieces.lengths[0]",
      );
    expect(() => coalesce({ ...toPieces([[1, 0, 1]]), count: 2 }, { maxBytes: 8 })).toThrow(
      "pieces.count",
    );
  });
});
