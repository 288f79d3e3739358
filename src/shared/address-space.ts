/**
 * What the kernel says of this process's address space: whether a stretch of it is mapped. Read where an address came from
 * outside (a handle), before it is believed.
 */
import { readKernelFile } from "../../ffi/index.ts";

/** While another thread maps over a part of it, a stretch can show a gap that is none: looked at again this often. */
const LOOKS = 3;

/** True if [address, address + lengthBytes) is mapped without a gap. Reads /proc/self/maps: for slow paths only. */
export function isMapped(address: number, lengthBytes: number): boolean {
  if (!Number.isSafeInteger(address) || address <= 0) return false;
  for (let look = 0; look < LOOKS; look++) if (isCovered(address, address + lengthBytes)) return true;
  return false;
}

function isCovered(start: number, end: number): boolean {
  let reached = start;
  // Lines are ordered by address: "7f0000000000-7f0000001000 rw-p ...".
  for (const line of readKernelFile("/proc/self/maps").toString("latin1").split("\n")) {
    const dash = line.indexOf("-");
    const from = Number.parseInt(line.slice(0, dash), 16);
    const to = Number.parseInt(line.slice(dash + 1), 16);
    if (to <= reached) continue;
    if (!(from <= reached)) return false;
    reached = to;
    if (reached >= end) return true;
  }
  return false;
}
