/**
 * The seam between a save and the tracker that reports pages written since the last take. There are
 * two trackers, and one suite runs over both (test/changes/conformance.test.ts):
 *
 *   userfaultfd  the kernel records the first write to each page; a take takes about 1 ms for 1 GiB
 *   hashes       each page is compared with the hash of its stored contents; 0.1 s for 1 GiB
 *
 * A tracker may report a page that was not written, but never misses a page whose contents differ.
 * The exception are changes that must be marked (Changes.mark): by punching a hole, by pwrite(2),
 * or through another mapping. Hashes need no marks.
 */
import type { PageRuns, RunCollector } from "./page-runs.ts";

/** "pagemap": for a mapped file, by the copies that the kernel has made (save/detector.ts). */
export type ChangeDetection = "userfaultfd" | "hashes" | "pagemap";

export interface TakeOptions {
  /** Other threads wait: leave out work that only makes later takes cheaper. */
  readonly isHurried?: boolean;
}

export interface ChangeTracker {
  readonly detection: ChangeDetection;
  /**
   * The pages that may have been written since the last take, in order; pages outside of `used` may
   * be among them. Copy pages after the take has returned: earlier writes are in the copy, and
   * later writes are also in the next take.
   *
   * @throws {SyscallError}
   */
  take(used: PageRuns, options?: TakeOptions): RunCollector;
}
