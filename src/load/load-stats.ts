/** The statistics of `loadStats`. */
import { PAGE_SIZE } from "../pages/units.ts";
import { describeSource } from "../source/describe.ts";
import { failureOf } from "./failures.ts";
import type { LoadState } from "./load-state.ts";
import { LoadWord } from "./load-tables.ts";

/** The way in which a background pass reads. */
export type UsedQueue = "workers" | "uring" | "inline";

/** Indexed by LoadWord.Queue. */
export const QUEUES = [null, "workers", "uring", "inline"] as const;

/** The progress of a restore; sizes in bytes. */
export interface LoadStats {
  readonly isLoading: boolean;
  /** Contents to load: pages of the checkpoint that are not zero. */
  readonly totalBytes: number;
  readonly loadedBytes: number;
  /** Contents whose read failed. They stay failed until `retryLoad`. */
  readonly failedBytes: number;
  /** Read again because what came over a network did not match its checksum. */
  readonly refetchedBytes: number;
  /** Loaded because a program waited for them. */
  readonly demandBytes: number;
  /** Pages that earlier starts used and this one read first, in blocks of 64 KiB. */
  readonly workingSetBytes: number;
  /** The part of the working set that this start has not used. */
  readonly wastedBytes: number;
  /** Loaded into huge pages, and into small ones. */
  readonly hugeBytes: number;
  readonly smallBytes: number;
  /** Loaded by mapping page files, and by copying. */
  readonly mappedBytes: number;
  readonly copiedBytes: number;
  /** The queue of the background pass; null if there is nothing to load. */
  readonly queue: UsedQueue | null;
  /** True if it reads without the page cache (O_DIRECT). */
  readonly isDirect: boolean;
  /** Reads of contents, and the most that one thread had in flight at once. */
  readonly readCalls: number;
  readonly readsInFlightMax: number;
  /** The first failure, or null. */
  readonly error: Error | null;
}

/** The statistics of a file that was not restored. */
export const NOTHING_LOADED: LoadStats = {
  isLoading: false,
  totalBytes: 0,
  loadedBytes: 0,
  failedBytes: 0,
  refetchedBytes: 0,
  demandBytes: 0,
  workingSetBytes: 0,
  wastedBytes: 0,
  hugeBytes: 0,
  smallBytes: 0,
  mappedBytes: 0,
  copiedBytes: 0,
  queue: null,
  isDirect: false,
  readCalls: 0,
  readsInFlightMax: 0,
  error: null,
};

/** @param stopped the reason why the load was ended early, or null */
export function statsOf(state: LoadState, isLoading: boolean, stopped: Error | null): LoadStats {
  const { words } = state;
  return {
    isLoading,
    totalBytes: words[LoadWord.ContentPages]! * PAGE_SIZE,
    loadedBytes: words[LoadWord.LoadedPages]! * PAGE_SIZE,
    failedBytes: words[LoadWord.FailedPages]! * PAGE_SIZE,
    refetchedBytes: words[LoadWord.RefetchedPages]! * PAGE_SIZE,
    demandBytes: words[LoadWord.DemandPages]! * PAGE_SIZE,
    // MemoryFile.loadStats fills these in (restore/working-set.ts).
    workingSetBytes: 0,
    wastedBytes: 0,
    hugeBytes: words[LoadWord.HugePages]! * PAGE_SIZE,
    // A thread may have died between the two counts.
    smallBytes: Math.max(0, words[LoadWord.LoadedPages]! - words[LoadWord.HugePages]!) * PAGE_SIZE,
    mappedBytes: words[LoadWord.MappedPages]! * PAGE_SIZE,
    copiedBytes:
      Math.max(0, words[LoadWord.LoadedPages]! - words[LoadWord.MappedPages]!) * PAGE_SIZE,
    queue: QUEUES[words[LoadWord.Queue]!]!,
    isDirect: describeSource(state.handle.source).isDirect,
    readCalls: words[LoadWord.ReadCalls]!,
    readsInFlightMax: words[LoadWord.MostInFlight]!,
    error: failureOf(state) ?? stopped,
  };
}

/** Records the most reads that were in flight at once. `words` are LoadWord's. */
export function noteInFlight(words: Int32Array, reads: number): void {
  for (let most = Atomics.load(words, LoadWord.MostInFlight); most < reads; ) {
    const seen = Atomics.compareExchange(words, LoadWord.MostInFlight, most, reads);
    if (seen === most) return;
    most = seen;
  }
}
