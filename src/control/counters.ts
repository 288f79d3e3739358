/**
 * Counters of a file: 64-bit words in its control block. The thread that does the work adds to them
 * atomically; they are read without a lock. They only grow, and no decision depends on them.
 *
 * Only cold work counts here (a save, a wait, an error). Figures that a hot path keeps anyway, such
 * as the pages in use, are read from its own words.
 */
import { PGALLOC_ERROR_CODES, type PgallocErrorCode } from "../errors/codes.ts";

/** Upper bounds of a histogram's buckets in milliseconds. A last bucket has the rest. */
export const BUCKET_BOUNDS_MS = [
  0.1, 0.3, 1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000,
] as const;
const BUCKETS = BUCKET_BOUNDS_MS.length + 1;
/** The buckets, then the sum in microseconds. */
const HISTOGRAM_WORDS = BUCKETS + 1;

/** Indexes of single counters. */
export const Counter = {
  SavesFailed: 0,
  /**
   * Bytes that saves wrote to page files and to manifests, and bytes that they did not write again.
   */
  SavedPagesBytes: 1,
  SavedMetaBytes: 2,
  ReusedBytes: 3,
  /** Committed memory that saves did not write because it was zero. */
  ZeroBytes: 4,
} as const;
const SINGLE_COUNTERS = 8;

/** Indexes of histograms: the first word of each. */
export const Histogram = {
  /** Waits for a range that is not loaded yet (awaitLoad). */
  AwaitRange: SINGLE_COUNTERS,
  /** Waits for the whole file. */
  AwaitAll: SINGLE_COUNTERS + HISTOGRAM_WORDS,
  /** Waits that blocked their thread (awaitLoadSync). */
  AwaitSync: SINGLE_COUNTERS + 2 * HISTOGRAM_WORDS,
  /** Saves that succeeded. */
  Save: SINGLE_COUNTERS + 3 * HISTOGRAM_WORDS,
  /** How long consistent saves stopped the program. */
  Pause: SINGLE_COUNTERS + 4 * HISTOGRAM_WORDS,
} as const;

const FIRST_ERROR = SINGLE_COUNTERS + 5 * HISTOGRAM_WORDS;
/** Errors without a code of the library: the operating system's, and others. */
const SYSTEM_ERROR = FIRST_ERROR + PGALLOC_ERROR_CODES.length;
const OTHER_ERROR = SYSTEM_ERROR + 1;

export const COUNTERS = OTHER_ERROR + 1;
export type Counters = BigInt64Array<SharedArrayBuffer>;

export function count(counters: Counters, index: number, amount = 1): void {
  Atomics.add(counters, index, BigInt(Math.round(amount)));
}

export function readCount(counters: Counters, index: number): number {
  return Number(Atomics.load(counters, index));
}

/** Adds a duration to a histogram. */
export function observe(counters: Counters, histogram: number, ms: number): void {
  let bucket = 0;
  while (bucket < BUCKET_BOUNDS_MS.length && ms > BUCKET_BOUNDS_MS[bucket]!) bucket++;
  count(counters, histogram + bucket);
  count(counters, histogram + BUCKETS, ms * 1000);
}

/** Durations in milliseconds. */
export interface HistogramSnapshot {
  readonly count: number;
  readonly sumMs: number;
  /** How many were at most `atMostMs` and above the bound before. The last bound is Infinity. */
  readonly buckets: readonly { readonly atMostMs: number; readonly count: number }[];
}

export function readHistogram(counters: Counters, histogram: number): HistogramSnapshot {
  const bounds = [...BUCKET_BOUNDS_MS, Number.POSITIVE_INFINITY];
  const buckets = bounds.map((atMostMs, bucket) => ({
    atMostMs,
    count: readCount(counters, histogram + bucket),
  }));
  return {
    count: buckets.reduce((sum, bucket) => sum + bucket.count, 0),
    sumMs: readCount(counters, histogram + BUCKETS) / 1000,
    buckets,
  };
}

export function countError(counters: Counters, error: unknown): void {
  const { code, syscall } = (error ?? {}) as { code?: unknown; syscall?: unknown };
  const known = PGALLOC_ERROR_CODES.indexOf(code as PgallocErrorCode);
  if (syscall === undefined && known >= 0) count(counters, FIRST_ERROR + known);
  else count(counters, syscall === undefined ? OTHER_ERROR : SYSTEM_ERROR);
}

/** Errors by code. "system" has the operating system's, "other" the rest. Zeros are left out. */
export function readErrors(counters: Counters): Record<string, number> {
  const names = [...PGALLOC_ERROR_CODES, "system", "other"];
  const entries = names.map((name, i) => [name, readCount(counters, FIRST_ERROR + i)] as const);
  return Object.fromEntries(entries.filter(([, errors]) => errors > 0));
}
