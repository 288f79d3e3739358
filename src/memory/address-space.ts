/**
 * How much address space a file reserves whose limit is not given.
 *
 * A process has 128 TiB of it. A file takes 256 GiB while half of that is free, and then a part of
 * what is left, so that 4,096 files, the most that a checkpoint may have, find room beside one
 * another.
 */
import { readKernelFile } from "../../ffi/index.ts";
import { CHUNK_SIZE, PAGE_SIZE } from "../pages/units.ts";

const ADDRESS_SPACE_BYTES = 2 ** 47;
const MOST_BYTES = 256 * CHUNK_SIZE;
const SHARE = 1 / 1024;

/** A multiple of the chunk size, at least one chunk. */
export function bytesToReserve(): number {
  // The first field is the size of all mappings, in pages.
  const usedBytes =
    Number.parseInt(readKernelFile("/proc/self/statm").toString("latin1"), 10) * PAGE_SIZE;
  const freeBytes = ADDRESS_SPACE_BYTES - usedBytes;
  if (freeBytes > ADDRESS_SPACE_BYTES / 2) return MOST_BYTES;
  return Math.max(1, Math.floor((freeBytes * SHARE) / CHUNK_SIZE)) * CHUNK_SIZE;
}
