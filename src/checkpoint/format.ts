/**
 * The format of the native checkpoint's manifest, the file `meta`. The manifest is complete by
 * itself: it says for every MemoryFile which pages are used, and for every page with contents where
 * they are. The contents are in page files (page-file.ts), which the manifest names.
 *
 *   header    80 bytes: magic "\0pgalloc", version u32, page size u32, checkpoint id u64 (random),
 *             hash seed u32, zeros u32, manifest bytes f64, eager bytes f64, section count u32,
 *             CRC-32 of the table u32, MemoryFile count u32, page file count u32, zeros, CRC-32 of
 *             the header's first 76 bytes u32.
 *   table     32 bytes a section: id u32, CRC-32 u32, offset f64, length f64, owner u32, zeros
 *             u32. The owner is the index of a MemoryFile, or WHOLE, the checkpoint.
 *   eager     Sections that opening a checkpoint reads: little-endian columns, in the table's
 *   sections  order, each at the first multiple of 8 after the one before, with zeros between.
 *             For each MemoryFile:
 *               name        1 to 255 bytes of UTF-8 without NUL; names are unique
 *               chunks      u8 a chunk: 1 = meant for huge pages
 *               runs        six u32 columns: first page, pages, state, refs, kind, group
 *               extents     four u32 columns: first page, pages, frame, page of the frame
 *               frames      f64 offset, f64 stored bytes, u32 content, u32 codec, u32 pages.
 *                           Ordered by content and offset. Content 1 is the first page file.
 *               columnCrcs  u32 a block: CRC-32 of each block of pageCrcs, then of pageHashes
 *               userData    as given; absent if there is none
 *             For the checkpoint:
 *               pageFiles   u64 id column, f64 column of contents' bytes; the oldest first
 *               userData    as above
 *   columns   Sections that are read on first use, in blocks (ColumnPlace): for each MemoryFile
 *             pageHashes (u64 a page), then for each pageCrcs (u32 a page), without gaps. Their
 *             CRC-32 in the table is 0: columnCrcs covers them.
 *
 * So a checksum or a known value covers every byte. The hash of a page is xxHash3 with the hash
 * seed; a save compares hashes to find pages that have not changed. Offsets and lengths are f64, so
 * a hostile 2^60 is simply a number out of bounds. The reader trusts no value: see decode.ts.
 */
import { CorruptCheckpointError } from "../errors/errors.ts";
import type { ColumnPlace, PageMap } from "./page-map.ts";

/** The bytes "\0pgalloc", read as a little-endian u64. */
export const MAGIC = 0x636f6c6c61677000n;
export const VERSION = 3;
export const HEADER_BYTES = 80;
export const TABLE_ENTRY_BYTES = 32;

/** Byte offsets of the header's fields. */
export const HeaderField = {
  Magic: 0,
  Version: 8,
  PageSize: 12,
  Id: 16,
  HashSeed: 24,
  ManifestBytes: 32,
  EagerBytes: 40,
  SectionCount: 48,
  TableCrc: 52,
  FileCount: 56,
  PageFileCount: 60,
  Crc: 76,
} as const;

/** The owner of a section that belongs to the whole checkpoint. */
export const WHOLE = 2 ** 32 - 1;
/** The name of a checkpoint's only MemoryFile if the program gave none. */
export const MAIN_NAME = "main";

export const Section = {
  Name: 1,
  Chunks: 2,
  Runs: 3,
  Extents: 4,
  Frames: 5,
  ColumnCrcs: 6,
  UserData: 7,
  PageFiles: 8,
  PageHashes: 9,
  PageCrcs: 10,
} as const;
export const SECTION_NAMES: Readonly<Record<number, string>> = {
  1: "name",
  2: "chunks",
  3: "runs",
  4: "extents",
  5: "frames",
  6: "columnCrcs",
  7: "userData",
  8: "pageFiles",
  9: "pageHashes",
  10: "pageCrcs",
};
export const RUN_COLUMNS = 6;
export const EXTENT_COLUMNS = 4;
/** Bytes of a row of the frames section. */
export const FRAME_BYTES = 28;
export const PAGE_FILE_BYTES = 16;

/** Runs of pages, one row each. */
export interface StoredRuns {
  readonly start: Uint32Array;
  readonly length: Uint32Array;
  /** allocator/states.ts: USED or SUB_RELEASED. */
  readonly state: Uint32Array;
  readonly refs: Uint32Array;
  readonly kind: Uint32Array;
  readonly group: Uint32Array;
}

/** A MemoryFile in a manifest. */
export interface FileImage {
  readonly name: string;
  /** One value for each chunk: 1 = meant for huge pages. */
  readonly chunkHuge: Uint8Array;
  /** Runs of pages that are not free: ordered, disjoint, each within chunks of one page size. */
  readonly runs: StoredRuns;
  /** Where the contents of pages are. */
  readonly pageMap: PageMap;
  readonly userData: Uint8Array | null;
}

/** A page file that a manifest names. Its content index is its index in the list plus 1. */
export interface PageFile {
  readonly id: bigint;
  /** Bytes of contents, without the trailer. */
  readonly sizeBytes: number;
}

/** A MemoryFile as a save writes it: with its columns. */
export interface SavedFile extends FileImage {
  /** CRC-32 of each page with contents, by rank. */
  readonly crcs: Uint32Array;
  /** xxHash3 of each page with contents, by rank. */
  readonly hashes: BigUint64Array;
}

export interface Manifest<File extends FileImage> {
  readonly id: bigint;
  readonly hashSeed: number;
  readonly pageFiles: readonly PageFile[];
  readonly files: readonly File[];
  readonly userData: Uint8Array | null;
}

/** A MemoryFile as a load reads it: its columns are still in the manifest. */
export interface DecodedFile extends FileImage {
  /** Pages of all extents. */
  readonly contentPages: number;
  readonly crcs: ColumnPlace;
  readonly hashes: ColumnPlace;
}

export function align8(offset: number): number {
  return Math.ceil(offset / 8) * 8;
}

export function crc32(bytes: Uint8Array): number {
  return Bun.hash.crc32(bytes);
}

/** xxHash3 of a page. Bun uses 32 bits of the seed. */
export function hashPage(page: Uint8Array, seed: number): bigint {
  return Bun.hash.xxHash3(page, seed as never) as bigint;
}

/** The error of every check of a checkpoint's metadata. */
export function corrupt(
  path: string,
  message: string,
  section?: string,
  offset?: number,
): CorruptCheckpointError {
  return new CorruptCheckpointError(message, {
    path,
    ...(section === undefined ? {} : { section }),
    ...(offset === undefined ? {} : { offset }),
  });
}
