/** Makes files hot or cold in the page cache, and checks the result. */
import { fsyncSync, readSync } from "node:fs";
import {
  closeFile,
  dropPageCache,
  fileStatus,
  mapFile,
  mincore,
  O_RDONLY,
  openFile,
  unmap,
} from "../../ffi/index.ts";
import { PAGE_SIZE } from "../../src/index.ts";

export type CacheState = "hot" | "cold";

/**
 * Returns the fraction of the file that is in the page cache afterwards: 1 for hot, 0 for cold, if
 * the kernel obeyed.
 */
export function prepareCache(path: string, state: CacheState): number {
  const fd = openFile(path, O_RDONLY);
  try {
    if (state === "cold") {
      fsyncSync(fd); // Dirty pages stay otherwise.
      dropPageCache(fd);
    } else if (residentFraction(fd) < 1) {
      const piece = new Uint8Array(1 << 20);
      for (let offset = 0, count = 1; count > 0; offset += count)
        count = readSync(fd, piece, 0, piece.length, offset);
    }
    return residentFraction(fd);
  } finally {
    closeFile(fd);
  }
}

/** By mincore(2); 1 for an empty file. */
function residentFraction(fd: number): number {
  const { sizeBytes } = fileStatus(fd);
  if (sizeBytes === 0) return 1;
  const address = mapFile(sizeBytes, fd, 0);
  const residency = new Uint8Array(Math.ceil(sizeBytes / PAGE_SIZE));
  mincore(address, sizeBytes, residency);
  unmap(address, sizeBytes);
  return residency.reduce((sum, state) => sum + (state & 1), 0) / residency.length;
}
