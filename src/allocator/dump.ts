/** The allocator's runs as text, one a line: what a person debugging a leak wants to see, and what tests compare. */
import { PAGE_SIZE } from "../units.ts";
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

export function dumpRuns(allocator: Allocator): string {
  const lines: string[] = [];
  allocator.lock();
  try {
    allocator.visitRuns((start, end, state, huge, refs, kind, group) => {
      const owner = state === USED ? ` refs=${refs} kind=${kind} group=${group}` : "";
      lines.push(`[${start * PAGE_SIZE}, ${end * PAGE_SIZE}) ${huge ? "huge " : ""}${STATE_NAMES[state]}${owner}`);
    });
  } finally {
    allocator.unlock();
  }
  return lines.join("\n");
}
