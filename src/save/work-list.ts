/**
 * The units that a save checks: those with used pages, file by file, in the order of memory. An
 * entry is one unit of one file; a ticket is a few entries.
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

export function listWork(files: readonly UsedRuns[]): WorkList {
  const unit: number[] = [];
  const run: number[] = [];
  const fileEntry = new Uint32Array(files.length + 1);
  files.forEach(({ start, length }, file) => {
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
  });
  fileEntry[files.length] = unit.length;
  return { unit: Uint32Array.from(unit), run: Uint32Array.from(run), fileEntry };
}
