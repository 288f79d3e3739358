/**
 * The seam between a save and what tells it which pages were written since it looked last. There
 * are two trackers, and one suite runs over both (test/changes/conformance.test.ts):
 *
 *   userfaultfd  the kernel notes the first write to each page; a take costs about 1 ms a GiB
 *   hashes       each page is compared with the hash of what the save has stored; 0.1 s a GiB
 *
 * A tracker may report a page that nothing wrote, but never misses a page whose contents differ,
 * unless they were changed in a way that has to be marked (Changes.mark): by punching a hole, by
 * pwrite(2), or through another mapping. Hashes need no marks.
 */
import type { PageRuns, RunCollector } from "./page-runs.ts";

/** "pagemap": of a mapped file, by what the kernel has copied (save/detector.ts). */
export type ChangeDetection = "userfaultfd" | "hashes" | "pagemap";

/** Half-open, in pages. */
export type VisitPages = (start: number, end: number) => void;

export interface TakeOptions {
  /** Other threads wait: leave out what only makes later takes cheaper. */
  readonly isHurried?: boolean;
}

export interface ChangeTracker {
  readonly detection: ChangeDetection;
  /**
   * The pages that may have been written since the last take, in order, those outside of `used`
   * perhaps among them. Pages are to be copied after the take has returned: what is written before
   * that is in the copy, and what is written later is in the next take, too.
   *
   * @throws {SyscallError}
   */
  take(used: PageRuns, options?: TakeOptions): RunCollector;
}
