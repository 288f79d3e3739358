/**
 * Counts the objects that a piece of work makes, by the engine's own count: everything on its heap,
 * closures and their environments included. The count is exact while nothing is collected, so the
 * work must be short.
 */
import { heapStats } from "bun:jsc";

const CALLS = 3;

/**
 * Objects made by a call of `work`, which has run before: the fewest of three calls, because
 * compiling makes objects as well.
 */
export function countObjects(work: () => void): number {
  const counts = Array.from({ length: CALLS }, () => newObjects(work));
  return Math.min(...counts) - newObjects(() => undefined); // Asking makes objects, too.
}

function newObjects(work: () => void): number {
  Bun.gc(true);
  const before = heapStats().objectTypeCounts;
  work();
  const after = heapStats().objectTypeCounts;
  let count = 0;
  for (const [type, objects] of Object.entries(after)) {
    // Structures are the engine's own descriptions of objects. Some come and go with any question.
    if (type !== "Structure") count += Math.max(0, objects - (before[type] ?? 0));
  }
  return count;
}
