/**
 * Sizes, and the units of numbers. Public ranges count bytes of the file. Inside, the allocator
 * counts pages (a page index fits in 31 bits), and the mapping turns a byte offset into an address.
 */
import { SYSTEM_PAGE_SIZE } from "../../ffi/index.ts";

/** Bytes of a page of the system: the unit of allocation, reference counting and decommitment. */
export const PAGE_SIZE = SYSTEM_PAGE_SIZE;
/** Exact, because PAGE_SIZE is a power of two. Multiplying is cheaper than dividing. */
const PAGES_PER_BYTE = 1 / PAGE_SIZE;
/** Bytes of a huge page. 2 MiB is the size that x64 and arm64 with 4 KiB pages share. */
export const HUGE_PAGE_SIZE = Math.max(2 * 1024 * 1024, PAGE_SIZE);
/** Bytes of a chunk: the unit by which the file grows. A chunk has one page size. */
export const CHUNK_SIZE = 1024 * 1024 * 1024;

export const PAGE_SHIFT = Math.log2(PAGE_SIZE);
export const PAGES_PER_HUGE_PAGE = HUGE_PAGE_SIZE / PAGE_SIZE;
export const PAGES_PER_CHUNK = CHUNK_SIZE / PAGE_SIZE;

/**
 * The kind that memory is accounted to, as in gVisor's `usage.MemoryKind`, whose kind 5 is Mapped.
 * A program's own kinds are 6 to 255.
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
 * doubles to the JIT, and so is everything computed from them; the truncation makes an integer.
 * (incRef and decRef on doubles took about a tenth longer.)
 */
export const pageOf = (offset: number): number => {
  return (offset * PAGES_PER_BYTE) | 0;
};
