/**
 * The native checkpoint's `meta` file: what it consists of, and its encoding. A checkpoint holds one MemoryFile or several, each
 * under its id, and one pages file for all of them.
 *
 *   header    64 bytes: magic "\0pgalloc", version u32, page size u32, checkpoint id u64 (random), pages file bytes f64,
 *             file bytes f64, section count u32, CRC-32 of the section table u32, MemoryFile count u32, zeros, CRC-32 of the
 *             header's first 60 bytes.
 *   table     32 bytes a section: id u32, CRC-32 u32, offset f64, length f64, owner u32, zeros. The owner is a MemoryFile, by
 *             its place in the order in which they were saved, or WHOLE, the checkpoint.
 *   sections  little-endian columns, in the table's order, each at the first multiple of 8 behind the one before, with zeros
 *             between: so a checksum, or a known value, covers every byte. Of each MemoryFile:
 *               name       its id: 1 to 255 bytes of UTF-8 without NUL, each id once
 *               chunks     u8 a chunk: 1 = meant for huge pages
 *               runs       six u32 columns one behind the other: first page, pages, state, refs, kind, group
 *               extents    two u32 columns: first page, pages. Their contents stand in `pages` in this order, those of each
 *                          MemoryFile behind those of the one before.
 *               userData   as given; absent when there is none
 *             Of the checkpoint:
 *               checksums  u32 a page of `pages`: its CRC-32
 *               userData   as above
 *
 * Offsets and lengths are f64 so that a hostile 2^60 is just a number that is out of bounds. Nothing is trusted on the way
 * in: see decode.ts.
 */
import { CorruptCheckpointError } from "../errors/errors.ts";

/** The bytes "\0pgalloc", read as a little-endian u64. */
export const MAGIC = 0x636f6c6c61677000n;
export const VERSION = 2;
export const HEADER_BYTES = 64;
export const TABLE_ENTRY_BYTES = 32;

/** The owner of a section that is no MemoryFile's. */
export const WHOLE = 2 ** 32 - 1;
/** The id of a checkpoint's only MemoryFile, where the program gave none. */
export const MAIN_NAME = "main";
/** The most MemoryFiles in a checkpoint. */
export const MAX_FILES = 4096;
export const MAX_NAME_BYTES = 255;

export const Section = {
  Chunks: 1,
  Runs: 2,
  Extents: 3,
  Checksums: 4,
  UserData: 5,
  Name: 6,
} as const;
export const SECTION_NAMES: Readonly<Record<number, string>> = {
  1: "chunks",
  2: "runs",
  3: "extents",
  4: "checksums",
  5: "userData",
  6: "name",
};
export const RUN_COLUMNS = 6;

/** Runs of pages, a row each. */
export interface RunColumns {
  readonly start: Uint32Array;
  readonly length: Uint32Array;
  /** allocator/states.ts: USED or SUB_RELEASED. */
  readonly state: Uint32Array;
  readonly refs: Uint32Array;
  readonly kind: Uint32Array;
  readonly group: Uint32Array;
}

/** A MemoryFile in a checkpoint, as columns. */
export interface FileImage {
  readonly name: string;
  /** One a chunk: 1 = meant for huge pages. */
  readonly chunkHuge: Uint8Array;
  /** Runs of pages that are not free, ordered, disjoint, each within chunks of one page size. */
  readonly runs: RunColumns;
  /** Pages that hold something, ordered, disjoint. */
  readonly extents: { readonly start: Uint32Array; readonly length: Uint32Array };
  readonly userData: Uint8Array | null;
}

/** A checkpoint's metadata. Pages are indexes of pages of `pageSize` bytes. */
export interface CheckpointImage {
  readonly id: bigint;
  readonly pageSize: number;
  readonly files: readonly FileImage[];
  /** CRC-32 of each page of the pages file. */
  readonly checksums: Uint32Array;
  readonly userData: Uint8Array | null;
}

interface EncodedSection {
  readonly id: number;
  readonly owner: number;
  readonly columns: readonly ArrayBufferView[];
}

function sectionsOf(image: CheckpointImage): EncodedSection[] {
  const sections: EncodedSection[] = [];
  image.files.forEach(({ name, chunkHuge, runs, extents, userData }, owner) => {
    sections.push({ id: Section.Name, owner, columns: [new TextEncoder().encode(name)] });
    sections.push({ id: Section.Chunks, owner, columns: [chunkHuge] });
    const { start, length, state, refs, kind, group } = runs;
    sections.push({ id: Section.Runs, owner, columns: [start, length, state, refs, kind, group] });
    sections.push({ id: Section.Extents, owner, columns: [extents.start, extents.length] });
    if (userData !== null) sections.push({ id: Section.UserData, owner, columns: [userData] });
  });
  sections.push({ id: Section.Checksums, owner: WHOLE, columns: [image.checksums] });
  if (image.userData !== null)
    sections.push({ id: Section.UserData, owner: WHOLE, columns: [image.userData] });
  return sections;
}

export function encodeMeta(image: CheckpointImage): Uint8Array {
  const sections = sectionsOf(image);
  const lengths = sections.map(({ columns }) =>
    columns.reduce((sum, column) => sum + column.byteLength, 0),
  );
  const tableEnd = HEADER_BYTES + TABLE_ENTRY_BYTES * sections.length;
  let end = tableEnd;
  const offsets = lengths.map((length) => {
    const offset = align8(end);
    end = offset + length;
    return offset;
  });
  const bytes = new Uint8Array(new ArrayBuffer(end));
  const view = new DataView(bytes.buffer);
  sections.forEach(({ id, owner, columns }, i) => {
    let at = offsets[i]!;
    for (const column of columns) {
      bytes.set(new Uint8Array(column.buffer, column.byteOffset, column.byteLength), at);
      at += column.byteLength;
    }
    const entry = HEADER_BYTES + TABLE_ENTRY_BYTES * i;
    view.setUint32(entry, id, true);
    view.setUint32(entry + 4, crc32(bytes.subarray(offsets[i]!, at)), true);
    view.setFloat64(entry + 8, offsets[i]!, true);
    view.setFloat64(entry + 16, lengths[i]!, true);
    view.setUint32(entry + 24, owner, true);
  });
  view.setBigUint64(0, MAGIC, true);
  view.setUint32(8, VERSION, true);
  view.setUint32(12, image.pageSize, true);
  view.setBigUint64(16, image.id, true);
  view.setFloat64(24, image.checksums.length * image.pageSize, true);
  view.setFloat64(32, end, true);
  view.setUint32(40, sections.length, true);
  view.setUint32(44, crc32(bytes.subarray(HEADER_BYTES, tableEnd)), true);
  view.setUint32(48, image.files.length, true);
  view.setUint32(60, crc32(bytes.subarray(0, 60)), true);
  return bytes;
}

export function align8(offset: number): number {
  return Math.ceil(offset / 8) * 8;
}

export function crc32(bytes: Uint8Array): number {
  return Bun.hash.crc32(bytes);
}

/** Shorthand for the error that every check of the metadata throws. */
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
