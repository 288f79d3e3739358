/** Validation of metadata: random images there and back, each rule alone, sub-release. */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { CorruptCheckpointError } from "../../src/errors/errors.ts";
import { imageToMetadata } from "../../src/gvisor/compose.ts";
import { CHUNKS_MAX, PAGE_BYTES, RunState } from "../../src/gvisor/image.ts";
import { decodeMetadata, type GvisorMetadata } from "../../src/gvisor/metadata.ts";
import { memorySource, readMetadataMessage } from "../../src/gvisor/stream.ts";
import { validateMetadata } from "../../src/gvisor/validate.ts";
import { imageArbitrary, toOracle } from "./support.ts";
import {
  readBack,
  K,
  CHUNK,
  HUGE,
  END,
  type Sketch,
  good,
  metadataOf,
  runsOf,
  replaced,
  without,
  base,
  goodRuns,
} from "./support/sketch.ts";

test("validateMetadata returns the image of composeMetadata", () => {
  let runs = 0;
  fc.assert(
    fc.property(imageArbitrary, (image) => {
      runs += image.runs.start.length;
      expect(readBack(imageToMetadata(image))).toEqual(image);
    }),
    { numRuns: 500 },
  );
  expect(runs).toBeGreaterThan(1000);
});

test("validateMetadata joins ranges that are cut in two, as gVisor does", () => {
  fc.assert(
    fc.property(imageArbitrary, (image) => {
      expect(readBack(cutRanges(imageToMetadata(image)))).toEqual(image);
    }),
    { numRuns: 100 },
  );
});

/** Every range of more than a page in two halves. */
function cutRanges(metadata: GvisorMetadata): GvisorMetadata {
  const cut = <T extends { start: Float64Array; end: Float64Array }>(columns: T): T => {
    const rows: number[] = [];
    const start: number[] = [];
    const end: number[] = [];
    for (let i = 0; i < columns.start.length; i++) {
      const [first, last] = [columns.start[i]!, columns.end[i]!];
      const length = last === Infinity ? 8 * PAGE_BYTES : last - first;
      const middle = first + Math.floor(length / 2 / PAGE_BYTES) * PAGE_BYTES;
      const pieces = middle > first ? [first, middle, last] : [first, last];
      for (let piece = 1; piece < pieces.length; piece++) {
        rows.push(i);
        start.push(pieces[piece - 1]!);
        end.push(pieces[piece]!);
      }
    }
    const others = Object.entries(columns).map(
      ([name, column]: [string, Float64Array | Uint32Array | Uint8Array]) => {
        const Column = column.constructor as new (values: number[]) => typeof column;
        return [name, new Column(rows.map((row) => column[row]!))] as const;
      },
    );
    return {
      ...Object.fromEntries(others),
      start: new Float64Array(start),
      end: new Float64Array(end),
    } as unknown as T;
  };
  return {
    ...metadata,
    memAcct: cut(metadata.memAcct),
    unfreeSmall: cut(metadata.unfreeSmall),
    unfreeHuge: cut(metadata.unfreeHuge),
    unwasteSmall: cut(metadata.unwasteSmall),
    unwasteHuge: cut(metadata.unwasteHuge),
  };
}

describe("the rules", () => {
  test("accept all four states in both page sizes", () => {
    expect(runsOf(good)).toEqual(goodRuns);
    const { committed } = validateMetadata(metadataOf(good));
    expect([...committed.start]).toEqual([0, 3, base + 522]);
    expect([...committed.length]).toEqual([2, 1, 502]);
  });

  test("make the same metadata of its image", () => {
    const metadata = metadataOf(good);
    expect(toOracle(imageToMetadata(readBack(metadata)))).toEqual(toOracle(metadata));
  });

  const { memAcct, unfreeSmall, unfreeHuge, unwasteSmall } = good;
  const broken: [string, Partial<Sketch>, string][] = [
    ["an empty range", { memAcct: replaced(memAcct, 0, 0, 0, 1, 7, 1) }, "mem_acct"],
    ["a range that ends before it begins", { unwasteHuge: [[K, 0]] }, "unwaste_huge"],
    ["a range that begins at 2^64-1", { unwasteHuge: [[END, END]] }, "unwaste_huge"],
    ["half a page", { unfreeSmall: replaced(unfreeSmall, 0, 0, K + 1, 2) }, "unfree_small"],
    [
      "a start within a page",
      { unfreeSmall: replaced(unfreeSmall, 0, 1, 2 * K, 2) },
      "unfree_small",
    ],
    ["ranges that overlap", { unfreeSmall: replaced(unfreeSmall, 1, K, 3 * K, 1) }, "unfree_small"],
    [
      "ranges out of order",
      { memAcct: [memAcct[1]!, memAcct[0]!, ...memAcct.slice(2)] },
      "mem_acct",
    ],
    ["a range twice", { memAcct: [memAcct[0]!, ...memAcct] }, "mem_acct"],
    [
      "accounting of the void",
      { memAcct: [...memAcct, [2 * CHUNK, 2 * CHUNK + K, 1, 0, 0]] },
      "mem_acct",
    ],
    [
      "accounting to the end of everything",
      { memAcct: [...memAcct, [2 * CHUNK - K, END, 1, 0, 0]] },
      "mem_acct",
    ],
    [
      "more references than fit",
      { unfreeSmall: replaced(unfreeSmall, 0, 0, 2 * K, 2 ** 32) },
      "unfree_small",
    ],
    ["2^64-1 references", { unfreeSmall: replaced(unfreeSmall, 0, 0, 2 * K, END) }, "unfree_small"],
    ["a kind of 256", { memAcct: replaced(memAcct, 0, 0, 2 * K, 256, 7, 1) }, "mem_acct"],
    [
      "a void with an end",
      { unfreeSmall: replaced(unfreeSmall, 3, CHUNK, 2 ** 52, 0) },
      "unfree_small",
    ],
    ["a void that is free", { unfreeHuge: without(unfreeHuge, 4) }, "unfree_huge"],
    [
      "a void with references",
      { unfreeHuge: replaced(unfreeHuge, 4, 2 * CHUNK, END, 1) },
      "unfree_huge",
    ],
    ["a void that is waste", { unwasteSmall: without(unwasteSmall, 1) }, "unwaste_small"],
    ["free huge pages in a small chunk", { unfreeHuge: without(unfreeHuge, 0) }, "unfree_huge"],
    [
      "used huge pages in a small chunk",
      { unfreeHuge: replaced(unfreeHuge, 0, 0, CHUNK, 1) },
      "unfree_huge",
    ],
    [
      "waste small pages in a huge chunk",
      {
        unwasteSmall: [
          [0, 3 * K],
          [4 * K, CHUNK],
          [CHUNK + K, END],
        ],
      },
      "unwaste_small",
    ],
    ["used pages without accounting", { memAcct: without(memAcct, 0) }, "mem_acct"],
    [
      "used pages that are waste",
      {
        unwasteSmall: [
          [0, K],
          [4 * K, END],
        ],
      },
      "unwaste_small",
    ],
    ["free pages with accounting", { unfreeSmall: without(unfreeSmall, 1) }, "mem_acct"],
    [
      "free pages that are waste",
      {
        unwasteSmall: [
          [0, 3 * K],
          [5 * K, END],
        ],
      },
      "unwaste_small",
    ],
    ["waste without accounting", { memAcct: without(memAcct, 2) }, "mem_acct"],
    ["waste of a kind", { memAcct: replaced(memAcct, 2, 3 * K, 4 * K, 1, 0, 1) }, "mem_acct"],
    ["small pages that are neither free nor waste", { unwasteSmall: [[0, END]] }, "unfree_small"],
    [
      "huge pages that are still being released",
      { unfreeHuge: replaced(unfreeHuge, 1, CHUNK, CHUNK + HUGE, 0) },
      "unfree_huge",
    ],
    [
      "half a free huge page",
      {
        unfreeHuge: without(unfreeHuge, 2),
        subreleased: [],
      },
      "unfree_huge",
    ],
    ["a count of 0", { subreleased: [[CHUNK + HUGE, 0]] }, "subreleased"],
    ["a count of 512", { subreleased: [[CHUNK + HUGE, 512]] }, "subreleased"],
    ["a count of 2^64-1", { subreleased: [[CHUNK + HUGE, END]] }, "subreleased"],
    ["a count above the pages", { subreleased: [[CHUNK + HUGE, 11]] }, "subreleased"],
    ["a count for a page in use", { subreleased: [[CHUNK, 1]] }, "subreleased"],
    ["a count for a small page", { subreleased: [[0, 1]] }, "subreleased"],
    ["a count in the void", { subreleased: [[2 * CHUNK, 1]] }, "subreleased"],
    ["a count at 2^64-1", { subreleased: [[END, 1]] }, "subreleased"],
    ["a count off a huge page", { subreleased: [[CHUNK + HUGE + K, 1]] }, "subreleased"],
  ];
  test.each(broken)("refuse %s", (_name, change, section) => {
    const attempt = () => validateMetadata(metadataOf({ ...good, ...change }), {}, "meta");
    expect(attempt).toThrow(CorruptCheckpointError);
    expect(attempt).toThrow(expect.objectContaining({ section, path: "meta" }));
  });

  test("apply limits", () => {
    const metadata = metadataOf(good);
    expect(() => validateMetadata(metadata, { limitBytes: 2 * CHUNK - 1 })).toThrow("limitBytes");
    expect(
      validateMetadata(metadata, { limitBytes: 2 * CHUNK, chunksMax: 2 }).chunkHuge.length,
    ).toBe(2);
    expect(() => validateMetadata(metadata, { chunksMax: 1 })).toThrow("at most 1");
    const many = { ...metadata, chunks: { huge: new Uint8Array(CHUNKS_MAX + 1) } };
    expect(() => validateMetadata(many, { chunksMax: 2 ** 40 })).toThrow(`at most ${CHUNKS_MAX}`);
  });

  test("accept an empty MemoryFile", () => {
    const everything = [[0, END, 0]];
    const empty: Sketch = {
      huge: [],
      memAcct: [],
      unfreeSmall: everything,
      unfreeHuge: everything,
      unwasteSmall: everything,
      unwasteHuge: everything,
      subreleased: [],
    };
    expect(runsOf(empty)).toEqual([]);
    expect(toOracle(imageToMetadata(readBack(metadataOf(empty))))).toEqual(
      toOracle(metadataOf(empty)),
    );
  });
});

describe("sub-release", () => {
  test("corrects a count that gVisor left too small", () => {
    for (const subreleased of [[], [[CHUNK + HUGE, 3]]]) {
      const image = readBack(metadataOf({ ...good, subreleased }));
      expect(runsOf({ ...good, subreleased })).toEqual(goodRuns);
      const { hugeStart, count } = imageToMetadata(image).subreleased;
      expect([[...hugeStart], [...count]]).toEqual([[CHUNK + HUGE], [10]]);
    }
  });

  test("frees a huge page whose pages are all sub-released", () => {
    const unfreeHuge = [
      [0, CHUNK, 0],
      [CHUNK, CHUNK + HUGE, 1],
      // From within one huge page, over a whole one, into a third.
      [CHUNK + HUGE, CHUNK + HUGE + 10 * K, 1],
      [CHUNK + HUGE + 10 * K, CHUNK + 3 * HUGE + 5 * K, 0],
      [CHUNK + 3 * HUGE + 5 * K, CHUNK + 4 * HUGE, 1],
      [2 * CHUNK, END, 0],
    ];
    const memAcct = [
      ...good.memAcct.slice(0, 4),
      [CHUNK + HUGE, CHUNK + HUGE + 10 * K, 2, 0, 1],
      [CHUNK + 3 * HUGE + 5 * K, CHUNK + 4 * HUGE, 2, 0, 1],
    ];
    const sketch = {
      ...good,
      unfreeHuge,
      memAcct,
      subreleased: [
        [CHUNK + 2 * HUGE, 256],
        [CHUNK + 3 * HUGE, 5],
      ],
    };
    expect(runsOf(sketch).slice(3)).toEqual([
      [base, 522, RunState.used, 1, 2, 0],
      [base + 522, 502, RunState.subReleased, 0, 0, 0],
      [base + 3 * 512, 5, RunState.subReleased, 0, 0, 0],
      [base + 3 * 512 + 5, 507, RunState.used, 1, 2, 0],
    ]);
  });
});

/**
 * gVisor wrote this after 8 MiB of huge pages were allocated and all except the first 64 KiB were
 * released in three parts, [64 KiB, 7936 KiB), [7936 KiB, 8000 KiB) and the rest. The first part is
 * counted in neither of the two huge pages that it cuts.
 */
test("validateMetadata accepts gVisor's own file with counts that are too small", () => {
  const bytes = new Uint8Array(
    readFileSync(join(import.meta.dir, "../data/gvisor/subreleased/pages_meta.img")),
  );
  const message = readMetadataMessage(memorySource(bytes));
  const metadata = decodeMetadata(message.bytes);
  expect([[...metadata.subreleased.hugeStart], [...metadata.subreleased.count]]).toEqual([
    [3 * HUGE],
    [64],
  ]);
  const { runs } = validateMetadata(metadata);
  expect([[...runs.start], [...runs.length], [...runs.state]]).toEqual([
    [0, 16],
    [16, 496],
    [RunState.used, RunState.subReleased],
  ]);
});
