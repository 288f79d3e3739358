/** The kernel's account of a file: /proc/self/smaps, and the blocks of its memory file. */
import { fstatSync, readFileSync } from "node:fs";
import type { MemoryFile } from "../../../src/index.ts";
import { coreOf } from "../../../src/file/memory-file.ts";

/** Bytes of the pages that are mapped from page files: clean ones, and private copies. */
export function smapsOf(file: MemoryFile): { cleanMappedBytes: number; privateBytes: number } {
  const { base } = coreOf(file).mapping;
  const entries = readFileSync("/proc/self/smaps", "utf8").split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m);
  const own = entries.filter((entry) => {
    const start = Number.parseInt(entry, 16);
    return start >= base && start < base + file.totalSizeBytes && entry.includes("/pages-");
  });
  const sum = (name: string) =>
    own.reduce((total, entry) => {
      return total + 1024 * Number(new RegExp(`^${name}: +(\\d+)`, "m").exec(entry)?.[1] ?? 0);
    }, 0);
  const anonymousBytes = sum("Anonymous");
  return {
    cleanMappedBytes: sum("Rss") - anonymousBytes,
    privateBytes: anonymousBytes + sum("Swap"),
  };
}

/** Bytes of the memory file that the kernel has allocated. */
export function memoryFileBytes(file: MemoryFile): number {
  return 512 * fstatSync(coreOf(file).mapping.fd).blocks;
}
