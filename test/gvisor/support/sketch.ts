/** gVisor's metadata written as rows of numbers, for tests of its rules. */
import {
  CHUNK_PAGES,
  HUGE_PAGES,
  type MemoryFileImage,
  PAGE_BYTES,
  RunState,
} from "../../../src/gvisor/image.ts";
import {
  decodeMetadata,
  encodeMetadata,
  type GvisorMetadata,
} from "../../../src/gvisor/metadata.ts";
import { locateInPagesFile } from "../../../src/gvisor/stream.ts";
import { validateMetadata } from "../../../src/gvisor/validate.ts";

export function readBack(metadata: GvisorMetadata): MemoryFileImage {
  const { chunkHuge, runs, committed } = validateMetadata(decodeMetadata(encodeMetadata(metadata)));
  const sizeBytes = chunkHuge.length * CHUNK_PAGES * PAGE_BYTES;
  return { chunkHuge, runs, extents: locateInPagesFile(committed, { sizeBytes }).extents };
}

export const K = PAGE_BYTES;
export const CHUNK = CHUNK_PAGES * K;
export const HUGE = HUGE_PAGES * K;
export const END = Infinity;

export type Rows = readonly (readonly number[])[];
export interface Sketch {
  huge: number[];
  /** start, end, kind, group, known */
  memAcct: Rows;
  /** start, end, refs */
  unfreeSmall: Rows;
  unfreeHuge: Rows;
  unwasteSmall: Rows;
  unwasteHuge: Rows;
  subreleased: Rows;
}

/**
 * One small chunk: pages 0-1 used by two, page 2 used, 3 waste, the rest free. One huge: 0-1 used,
 * 10 sub-released, 1 used.
 */
export const good: Sketch = {
  huge: [0, 1],
  memAcct: [
    [0, 2 * K, 1, 7, 1],
    [2 * K, 3 * K, 1, 7, 0],
    [3 * K, 4 * K, 0, 0, 1],
    [CHUNK, CHUNK + HUGE, 2, 0, 0],
    [CHUNK + HUGE + 10 * K, CHUNK + 2 * HUGE, 2, 0, 1],
  ],
  unfreeSmall: [
    [0, 2 * K, 2],
    [2 * K, 3 * K, 1],
    [3 * K, 4 * K, 0],
    [CHUNK, END, 0],
  ],
  unfreeHuge: [
    [0, CHUNK, 0],
    [CHUNK, CHUNK + HUGE, 1],
    [CHUNK + HUGE, CHUNK + HUGE + 10 * K, 0],
    [CHUNK + HUGE + 10 * K, CHUNK + 2 * HUGE, 1],
    [2 * CHUNK, END, 0],
  ],
  unwasteSmall: [
    [0, 3 * K],
    [4 * K, END],
  ],
  unwasteHuge: [[0, END]],
  subreleased: [[CHUNK + HUGE, 10]],
};

export function metadataOf(sketch: Sketch): GvisorMetadata {
  const column = (rows: Rows, index: number) => rows.map((row) => row[index]!);
  const range = (rows: Rows) => ({
    start: new Float64Array(column(rows, 0)),
    end: new Float64Array(column(rows, 1)),
  });
  const unfree = (rows: Rows) => ({ ...range(rows), refs: new Float64Array(column(rows, 2)) });
  return {
    chunks: { huge: new Uint8Array(sketch.huge) },
    memAcct: {
      ...range(sketch.memAcct),
      kind: new Uint32Array(column(sketch.memAcct, 2)),
      group: new Uint32Array(column(sketch.memAcct, 3)),
      knownCommitted: new Uint8Array(column(sketch.memAcct, 4)),
    },
    unfreeSmall: unfree(sketch.unfreeSmall),
    unfreeHuge: unfree(sketch.unfreeHuge),
    unwasteSmall: range(sketch.unwasteSmall),
    unwasteHuge: range(sketch.unwasteHuge),
    subreleased: {
      hugeStart: new Float64Array(column(sketch.subreleased, 0)),
      count: new Float64Array(column(sketch.subreleased, 1)),
    },
  };
}

export function runsOf(sketch: Sketch): number[][] {
  const { start, length, state, refs, kind, group } = validateMetadata(metadataOf(sketch)).runs;
  return [...start.keys()].map((i) => [
    start[i]!,
    length[i]!,
    state[i]!,
    refs[i]!,
    kind[i]!,
    group[i]!,
  ]);
}

export const replaced = (rows: Rows, index: number, ...row: number[]): Rows =>
  rows.with(index, row);
export const without = (rows: Rows, index: number): Rows => rows.toSpliced(index, 1);

export const base = CHUNK_PAGES;
export const goodRuns = [
  [0, 2, RunState.used, 2, 1, 7],
  [2, 1, RunState.used, 1, 1, 7],
  [3, 1, RunState.waste, 0, 0, 0],
  [base, 512, RunState.used, 1, 2, 0],
  [base + 512, 10, RunState.subReleased, 0, 0, 0],
  [base + 522, 502, RunState.used, 1, 2, 0],
];
