/**
 * The pages of a program's start: those of its working set and those that it has used since. A full
 * save stores them first and together, in the order of their use, and a compaction does the same
 * with those that it moves. So the next start reads few long ranges: over a network each range is a
 * request, and a compressed frame has no other pages.
 */
import { intersectRuns, type PageRuns, RunCollector } from "../changes/page-runs.ts";
import type { FileCore } from "../core/core.ts";
import { unitsOfStart } from "../load/first-pages.ts";
import { PAGES_PER_HUGE_PAGE as PAGES_PER_UNIT } from "../pages/units.ts";

/** Pages, and the order in which their units are stored. */
export interface OrderedRuns extends PageRuns {
  readonly units: readonly number[];
}

/** The pages of a file's start among `pages`. */
export function startPagesOf({ loader }: FileCore, pages: PageRuns): OrderedRuns {
  const units = loader === undefined ? new Map() : unitsOfStart(loader.state.handle);
  const runs = new RunCollector();
  for (const unit of [...units.keys()].sort((a, b) => a - b)) {
    const bits = units.get(unit)!;
    for (let page = 0; page < PAGES_PER_UNIT; page++) {
      if ((bits[page >>> 5]! & (1 << (page & 31))) === 0) continue;
      const at = unit * PAGES_PER_UNIT + page;
      runs.add(at, at + 1);
    }
  }
  return { ...intersectRuns(runs.runs, pages).runs, units: [...units.keys()] };
}
