/**
 * Pages that a program freed during a save with `consistent: false`. Once such a page is released
 * it reads as zeros, which it never held while it was used. The save leaves it out, unless its
 * contents were stored before.
 */
import { type PageRuns, RunCollector, subtractRuns } from "../changes/page-runs.ts";
import type { StoredRuns } from "../checkpoint/format.ts";
import type { FileCore } from "../core/core.ts";
import { SUB_RELEASED } from "../allocator/states.ts";
import { COUNTED } from "../allocator/waste.ts";
import { PAGES_PER_CHUNK } from "../pages/units.ts";
import { collectRuns, joinSubReleased, StoredRunRows, usedRuns } from "./collect.ts";
import type { FileTable } from "./save-table.ts";

/** The pages of `used` that are free now, and whose contents are not stored. */
export function findFreed(core: FileCore, used: PageRuns, { frame }: FileTable): PageRuns {
  const freed = new RunCollector();
  if (core.isDetached) return freed.runs;
  const { start, length } = subtractRuns(used, usedRuns(collectRuns(core.allocator).runs));
  for (let i = 0; i < start.length; i++) {
    const end = start[i]! + length[i]!;
    for (let page = start[i]!; page < end; page++) {
      if (frame[page] === 0) freed.add(page, page + 1);
    }
  }
  return freed.runs;
}

/** Calls `visit` for each part of [start, end), in order. `from` is the last call's result. */
export function splitAtFreed(
  freed: PageRuns,
  from: number,
  [start, end]: readonly [number, number],
  visit: (start: number, end: number, isFreed: boolean) => void,
): number {
  let next = from;
  for (let at = start; at < end; ) {
    while (next < freed.start.length && freed.start[next]! + freed.length[next]! <= at) next++;
    const first = Math.max(at, freed.start[next] ?? end);
    if (at < first) visit(at, Math.min(first, end), false);
    if (first >= end) break;
    at = Math.min(end, freed.start[next]! + freed.length[next]!);
    visit(first, at, true);
  }
  return next;
}

/**
 * The runs of a checkpoint without the pages of `freed`, which are pages of used runs. In chunks of
 * huge pages they are sub-released.
 */
export function withoutFreed(
  { chunkHuge, runs }: { readonly chunkHuge: Uint8Array; readonly runs: StoredRuns },
  freed: PageRuns,
): StoredRuns {
  if (freed.start.length === 0) return runs;
  const rows = new StoredRunRows();
  let next = 0;
  for (let i = 0; i < runs.start.length; i++) {
    const start = runs.start[i]!;
    const isHuge = chunkHuge[Math.floor(start / PAGES_PER_CHUNK)] === 1;
    const values = [runs.state[i]!, runs.refs[i]!, runs.kind[i]!, runs.group[i]!] as const;
    next = splitAtFreed(freed, next, [start, start + runs.length[i]!], (first, end, isFreed) => {
      if (!isFreed) rows.push(first, end - first, ...values);
      else if (isHuge) rows.push(first, end - first, SUB_RELEASED, 0, 0, COUNTED);
    });
  }
  return joinSubReleased(rows.finish());
}
