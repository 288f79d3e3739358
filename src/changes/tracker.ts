/**
 * The seam between a save and what tells it which pages were written. There are two trackers, and
 * one suite runs over both (test/changes/conformance.test.ts):
 *
 *   userfaultfd  the kernel notes the first write to each page; a scan costs about 1 ms a GiB
 *   hashes       each page's hash is compared with the one of the take before; 0.1 s a GiB
 *
 * A tracker may report a page that nothing wrote, but never misses a page whose contents differ
 * from those at the last take, unless they were changed in a way that has to be marked
 * (Changes.markWritten): by punching a hole, by pwrite(2), or through another mapping.
 */
import type { PageRuns } from "./page-runs.ts";

export type ChangeDetection = "userfaultfd" | "hashes";

/** Half-open, in pages. */
export type VisitPages = (start: number, end: number) => void;

export interface ChangeTracker {
  readonly detection: ChangeDetection;
  /**
   * Visits the pages that may have been written since the last take, in order; the first take
   * visits every page that holds something. Pages are to be copied after the take has returned:
   * what is written before that is in the copy, and what is written later is in the next take, too.
   *
   * @param used the used pages. Pages outside may be left out, and are unknown afterwards.
   * @param options.isHurried leaves out what only makes later takes cheaper: other threads wait
   * @throws {SyscallError}
   */
  take(used: PageRuns, visit: VisitPages, options?: { readonly isHurried?: boolean }): void;
  /** Work that has time between saves: joins huge pages that nothing has written for long. */
  maintain(): void;
}
