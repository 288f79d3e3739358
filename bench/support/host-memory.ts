/**
 * A virtual machine returns memory that has been free for a while to its host, and the next first
 * touch of it is several times slower. The first contender would pay for all of them. So free
 * memory is touched and freed again just before.
 */
import { advise, MADV_HUGEPAGE, mapAnonymous, unmap, zeroMemory } from "../../ffi/index.ts";

/**
 * Touches `lengthBytes` of free memory: the kernel hands out first the memory that was freed last.
 */
export function warmFreeMemory(lengthBytes: number): void {
  const address = mapAnonymous(lengthBytes);
  advise(address, lengthBytes, MADV_HUGEPAGE); // A fault for 2 MiB instead of 512.
  zeroMemory(address, lengthBytes);
  unmap(address, lengthBytes);
}
