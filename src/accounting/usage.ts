/**
 * Usage: how much committed memory each kind and each group has, from the known pages and the allocator's runs.
 *
 * Used pages count for the kind and group of their allocation. Committed pages that nobody uses count as System and for no
 * group (0): waste until it is recycled or released, and what the kernel has committed around used pages (huge pages). So
 * the sum is all known committed memory, and equals `totalUsageBytes` when all is known.
 */
import type { Allocator } from "../allocator/allocator.ts";
import { USED } from "../allocator/states.ts";
import { MemoryKind, PAGE_SIZE } from "../units.ts";
import type { Commitment } from "./commitment.ts";

export interface KindUsage {
  readonly totalBytes: number;
  /** Bytes of each kind that has any. */
  readonly byKind: ReadonlyMap<MemoryKind, number>;
}

/** Committed memory of a file, in bytes, as far as `updateUsage` has found it. */
export interface Usage extends KindUsage {
  /** Of each group that has any; group 0 is memory of no group. The totals add up to `totalBytes`. */
  readonly byGroup: ReadonlyMap<number, KindUsage>;
}

export function usageOf(allocator: Allocator, commitment: Commitment): Usage {
  const pages = new Map<number, Map<MemoryKind, number>>();
  const count = (group: number, kind: MemoryKind, more: number) => {
    if (more === 0) return;
    const byKind = pages.get(group) ?? new Map<MemoryKind, number>();
    byKind.set(kind, (byKind.get(kind) ?? 0) + more);
    pages.set(group, byKind);
  };
  allocator.lock();
  try {
    let unowned = commitment.knownPages;
    if (unowned > 0) {
      allocator.visitRuns((start, end, state, _huge, _refs, kind, group) => {
        if (state !== USED) return;
        const known = commitment.countKnown(start, end);
        count(group, kind, known);
        unowned -= known;
      });
    }
    count(0, MemoryKind.System, unowned);
  } finally {
    allocator.unlock();
  }
  return summarize(pages);
}

function summarize(pages: ReadonlyMap<number, ReadonlyMap<MemoryKind, number>>): Usage {
  const byKind = new Map<MemoryKind, number>();
  const byGroup = new Map<number, KindUsage>();
  let totalBytes = 0;
  for (const [group, kinds] of pages) {
    const bytes = new Map([...kinds].map(([kind, count]) => [kind, count * PAGE_SIZE]));
    const groupBytes = [...bytes.values()].reduce((sum, more) => sum + more, 0);
    byGroup.set(group, { totalBytes: groupBytes, byKind: bytes });
    for (const [kind, more] of bytes) byKind.set(kind, (byKind.get(kind) ?? 0) + more);
    totalBytes += groupBytes;
  }
  return { totalBytes, byKind, byGroup };
}
