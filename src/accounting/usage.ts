/**
 * The committed memory of each kind and each group, from the known pages and the allocator's runs.
 *
 * Used pages count for the kind and group of their allocation. All other committed pages count as
 * System and for group 0 (no group): waste until it is recycled or released, and pages that the
 * kernel has committed around used pages (huge pages). The sum is all known committed memory. It
 * equals `totalUsageBytes` when all is known.
 */
import type { Allocator } from "../allocator/allocator.ts";
import { USED } from "../allocator/states.ts";
import { MAX_KIND, MemoryKind, PAGE_SIZE } from "../pages/units.ts";
import type { Commitment } from "./commitment.ts";
import type { MappedPages } from "../pages/private-pages.ts";
import { type MappedUsage, usageOfMapped } from "./mapped-usage.ts";

export interface KindUsage {
  readonly totalBytes: number;
  /** Bytes of each kind that has memory. */
  readonly byKind: ReadonlyMap<MemoryKind, number>;
}

/**
 * Committed memory of a file, in bytes, as far as `updateUsage` has found it. Pages that are mapped
 * from page files are not part of it: they are counted separately, at the time of the call.
 */
export interface Usage extends KindUsage, MappedUsage {
  /**
   * Each group that has memory. Group 0 is memory without a group. The totals add up to
   * `totalBytes`.
   */
  readonly byGroup: ReadonlyMap<number, KindUsage>;
}

/** Kinds of a group are neighbours in the keys: group * KINDS + kind. */
const KINDS = MAX_KIND + 1;

/** The parts of a file that are read here. */
export interface UsageSource {
  readonly allocator: Allocator;
  readonly commitment: Commitment;
  readonly mapping: { readonly overlay: MappedPages | null };
}

export function usageOf({ allocator, commitment, mapping }: UsageSource): Usage {
  const pages = new Map<number, number>();
  allocator.lock();
  try {
    let unowned = commitment.knownPages;
    if (unowned > 0) {
      allocator.visitRuns((start, end, state, _huge, _refs, kind, group) => {
        if (state !== USED) return;
        const known = commitment.countKnown(start, end);
        if (known === 0) return;
        unowned -= known;
        const key = group * KINDS + kind;
        pages.set(key, (pages.get(key) ?? 0) + known);
      });
    }
    if (unowned > 0) pages.set(MemoryKind.System, (pages.get(MemoryKind.System) ?? 0) + unowned);
  } finally {
    allocator.unlock();
  }
  return { ...summarize(pages), ...usageOfMapped(mapping.overlay, allocator.set.size) };
}

function summarize(pages: ReadonlyMap<number, number>): Omit<Usage, keyof MappedUsage> {
  const byKind = new Map<MemoryKind, number>();
  const byGroup = new Map<number, { totalBytes: number; byKind: Map<MemoryKind, number> }>();
  let totalBytes = 0;
  for (const [key, count] of pages) {
    const kind = key % KINDS;
    const group = Math.floor(key / KINDS);
    const bytes = count * PAGE_SIZE;
    totalBytes += bytes;
    byKind.set(kind, (byKind.get(kind) ?? 0) + bytes);
    const usage = byGroup.get(group) ?? { totalBytes: 0, byKind: new Map<MemoryKind, number>() };
    usage.totalBytes += bytes;
    usage.byKind.set(kind, bytes);
    byGroup.set(group, usage);
  }
  return { totalBytes, byKind, byGroup };
}
