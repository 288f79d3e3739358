/**
 * The allocator's runs as text, one on each line: for debugging a leak, and for tests to compare.
 */
import { PAGE_SIZE } from "../pages/units.ts";
import type { Allocator } from "./allocator.ts";
import { FREE, HELD, RELEASING, SUB_RELEASED, USED, WASTE } from "./states.ts";

const STATE_NAMES: Readonly<Record<number, string>> = {
  [FREE]: "free",
  [WASTE]: "waste",
  [USED]: "used",
  [HELD]: "held",
  [RELEASING]: "releasing",
  [SUB_RELEASED]: "sub-released",
};

/** Numbers that describe one run. */
const COLUMNS = 7;

export function dumpRuns(allocator: Allocator): string {
  const runs: number[] = [];
  // Gather only numbers while other threads wait for the lock: making text of 131,072 runs takes
  // ten times as long.
  allocator.lock();
  try {
    allocator.visitRuns((start, end, state, huge, refs, kind, group) => {
      runs.push(start, end, state, huge ? 1 : 0, refs, kind, group);
    });
  } finally {
    allocator.unlock();
  }
  const lines: string[] = [];
  for (let i = 0; i < runs.length; i += COLUMNS) {
    const [start, end, state, huge, refs, kind, group] = runs.slice(i, i + COLUMNS) as [
      number,
      number,
      number,
      number,
      number,
      number,
      number,
    ];
    const owner = state === USED ? ` refs=${refs} kind=${kind} group=${group}` : "";
    lines.push(
      `[${start * PAGE_SIZE}, ${end * PAGE_SIZE}) ` +
        `${huge === 1 ? "huge " : ""}${STATE_NAMES[state]}${owner}`,
    );
  }
  return lines.join("\n");
}
