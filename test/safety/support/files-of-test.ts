/** A directory for one test, and whether memory of a name is mapped. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export function isMapped(name: string): boolean {
  return readFileSync("/proc/self/maps", "utf8").includes(`memfd:${name}`);
}

export async function withDirectory(work: (directory: string) => Promise<void>): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), "pgalloc-api-"));
  try {
    await work(directory);
  } finally {
    rmSync(directory, { recursive: true });
  }
}
