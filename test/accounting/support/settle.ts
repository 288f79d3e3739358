/**
 * Calls updateUsage until all committed memory is known, because full scans are throttled. For
 * files that no thread touches meanwhile.
 */
import type { MemoryFile, Usage } from "../../../src/index.ts";

const ATTEMPTS_MAX = 20_000;

export function settledUsage(file: MemoryFile): Usage {
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
    if (file.updateUsage()) continue;
    const usage = file.usage();
    if (usage.totalBytes === file.totalUsageBytes) return usage;
    // A count that is too large stays so: only the file's own work removes known pages.
    if (usage.totalBytes > file.totalUsageBytes) break;
    Bun.sleepSync(1);
  }
  throw new Error(
    `Known are ${file.usage().totalBytes} bytes, the kernel says ${file.totalUsageBytes}`,
  );
}

/** A usage in a form that toEqual compares well. */
export function plain(usage: Usage): {
  total: number;
  kinds: Record<number, number>;
  groups: Record<string, number>;
} {
  const groups: Record<string, number> = {};
  for (const [group, { byKind }] of usage.byGroup) {
    for (const [kind, bytes] of byKind) groups[`${group}/${kind}`] = bytes;
  }
  return { total: usage.totalBytes, kinds: Object.fromEntries(usage.byKind), groups };
}
