/** Exhaustive search over a part of the vectors: the work of one thread or Worker. */
import type { WordIndex } from "../word-search/index-file.ts";

/** Rows that are awaited and searched at once: about 400 KiB of vectors. */
const ROWS_AT_ONCE = 1024;

export interface Hit {
  readonly row: number;
  readonly similarity: number;
}

/**
 * For each query row, finds the `count` rows of [first, last) that are nearest to it. Waits for the
 * vectors piece by piece, so that it searches loaded ones while the rest still loads.
 */
export function searchRows(
  index: WordIndex,
  queries: readonly number[],
  first: number,
  last: number,
  count: number,
): Hit[][] {
  const { dimensions } = index;
  const vectors = queries.map((row) => index.rowsSync(row, row + 1).slice());
  const hits: Hit[][] = queries.map(() => []);
  for (let from = first; from < last; from += ROWS_AT_ONCE) {
    const to = Math.min(last, from + ROWS_AT_ONCE);
    const rows = index.rowsSync(from, to);
    for (const [i, vector] of vectors.entries()) {
      for (let row = from; row < to; row++) {
        if (row !== queries[i])
          insert(hits[i]!, row, dot(rows, (row - from) * dimensions, vector), count);
      }
    }
  }
  return hits;
}

/**
 * Keeps the `count` best, best first. Equal ones are ordered by row, so every split finds the same.
 */
function insert(best: Hit[], row: number, similarity: number, count: number): void {
  if (best.length === count && similarity <= best[count - 1]!.similarity) return;
  best.push({ row, similarity });
  best.sort(byRank);
  best.length = Math.min(best.length, count);
}

/** The best results of several threads. */
export function mergeHits(parts: readonly Hit[][], count: number): Hit[] {
  return parts.flat().sort(byRank).slice(0, count);
}

function byRank(a: Hit, b: Hit): number {
  return b.similarity - a.similarity || a.row - b.row;
}

function dot(rows: Float32Array, offset: number, vector: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < vector.length; i++) sum += rows[offset + i]! * vector[i]!;
  return sum;
}
