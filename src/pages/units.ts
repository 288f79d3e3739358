/**
 * Sizes, and what a number means: bytes of the file, or pages of it. Public ranges are bytes;
 * inside, the allocator counts pages (a page index fits in 31 bits) and the mapping turns a byte
 * offset into an address.
 */
import { SYSTEM_PAGE_SIZE } from "../../ffi/index.ts";

/**
 * Bytes of a page: the unit of allocation, reference counting and decommitment. The system's own.
 */
export const PAGE_SIZE = SYSTEM_PAGE_SIZE;
/** Exact, since PAGE_SIZE is a power of two: multiplying by it is cheaper than dividing. */
const PAGES_PER_BYTE = 1 / PAGE_SIZE;
/** Bytes of a huge page. 2 MiB is the size that x64 and arm64 with 4 KiB pages share. */
export const HUGE_PAGE_SIZE = Math.max(2 * 1024 * 1024, PAGE_SIZE);
/**
 * Bytes of a chunk: the unit by which the file grows; all of a chunk is meant for one page size.
 */
export const CHUNK_SIZE = 1024 * 1024 * 1024;

export const PAGE_SHIFT = Math.log2(PAGE_SIZE);
export const PAGES_PER_HUGE_PAGE = HUGE_PAGE_SIZE / PAGE_SIZE;
export const PAGES_PER_CHUNK = CHUNK_SIZE / PAGE_SIZE;

/**
 * Who memory is accounted to, as in gVisor's `usage.MemoryKind`; a program's own kinds are 5 to
 * 255.
 */
export type MemoryKind = number;
export const MemoryKind = {
  System: 0,
  Anonymous: 1,
  PageCache: 2,
  Tmpfs: 3,
  Ramdiskfs: 4,
} as const;

export const MAX_KIND = 255;
export const MAX_GROUP = 2 ** 32 - 1;

/**
 * The index of the page that holds the byte at `offset`, below 2^31 pages. Offsets above 2^31 are
 * doubles to the engine, and so is what is computed from them; the truncation makes an integer of
 * it, and of all that follows. (incRef and decRef on doubles took about a tenth longer.)
 */
export const pageOf = (offset: number): number => {
  return (offset * PAGES_PER_BYTE) | 0;
};
