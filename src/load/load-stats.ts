/** What `MemoryFile.loadStats()` tells of a restore. */
import type { QueueChoice } from "./choose-queue.ts";

/** What a restore has done so far; sizes in bytes. */
export interface LoadStats {
  readonly isLoading: boolean;
  /** Contents to load: what the pages file holds. */
  readonly totalBytes: number;
  readonly loadedBytes: number;
  /** Contents whose read failed; they stay failed until `retryLoad`. */
  readonly failedBytes: number;
  /** Loaded because somebody waited for them. */
  readonly demandBytes: number;
  /** Loaded into huge pages, and into small ones. */
  readonly hugeBytes: number;
  readonly smallBytes: number;
  /** What the background pass reads by; null if there is nothing to load. */
  readonly queue: QueueChoice["queue"];
  /** True if it reads past the page cache (O_DIRECT). */
  readonly isDirect: boolean;
  /** Reads made, and the most that one thread had in flight at once. */
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
  demandBytes: 0,
  hugeBytes: 0,
  smallBytes: 0,
  queue: null,
  isDirect: false,
  readCalls: 0,
  readsInFlightMax: 0,
  error: null,
};
