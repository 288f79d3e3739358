/**
 * The units that a save checks: those with used pages, file by file, in the order of memory or in
 * one that is given. An entry is one unit of one file; a ticket is a few entries.
 */
import { PAGES_PER_HUGE_PAGE as PAGES_PER_UNIT } from "../pages/units.ts";
import type { UsedRuns } from "./build-map.ts";

/** postMessage can copy it. */
export interface WorkList {
  /** Unit of each entry. */
  readonly unit: Uint32Array;
  /** The file's first used run that touches the unit. */
  readonly run: Uint32Array;
  /** First entry of each file, and after the last file the number of entries. */
  readonly fileEntry: Uint32Array;
}

/** A file's used pages. `units`: the order of its entries, which has all units. */
interface Work extends UsedRuns {
  readonly units?: readonly number[];
}

export function listWork(files: readonly Work[]): WorkList {
  const unit: number[] = [];
  const run: number[] = [];
  const fileEntry = new Uint32Array(files.length + 1);
  files.forEach(({ start, length, units }, file) => {
    fileEntry[file] = unit.length;
    let next = 0;
    for (let i = 0; i < start.length; i++) {
      const last = Math.floor((start[i]! + length[i]! - 1) / PAGES_PER_UNIT);
      const first = Math.max(next, Math.floor(start[i]! / PAGES_PER_UNIT));
      for (let u = first; u <= last; u++) {
        unit.push(u);
        run.push(i);
      }
      next = Math.max(next, last + 1);
    }
    if (units !== undefined) reorder(unit, run, fileEntry[file]!, units);
  });
  fileEntry[files.length] = unit.length;
  return { unit: Uint32Array.from(unit), run: Uint32Array.from(run), fileEntry };
}

/** Brings the entries from `first` on into the order of `units`. */
function reorder(unit: number[], run: number[], first: number, units: readonly number[]): void {
  const runOf = new Map(unit.splice(first).map((u, i) => [u, run[first + i]!]));
  run.length = first;
  for (const u of units) {
    const firstRun = runOf.get(u);
    if (firstRun === undefined) continue;
    unit.push(u);
    run.push(firstRun);
  }
}
