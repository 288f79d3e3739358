/**
 * Takes a native checkpoint's manifest apart into header, table and sections, and puts it together
 * with other values and right checksums: the power of an attacker who knows the format
 * (src/checkpoint/format.ts).
 */
import {
  crc32,
  HEADER_BYTES,
  HeaderField,
  Section,
  TABLE_ENTRY_BYTES,
} from "../../../src/checkpoint/format.ts";
import { BLOCK_PAGES } from "../../../src/checkpoint/page-map.ts";

export interface RawSection {
  readonly id: number;
  /** The index of a MemoryFile, or WHOLE. */
  readonly owner: number;
  readonly bytes: Uint8Array;
  /** The table's values, if they are not the true ones. */
  readonly offset?: number;
  readonly lengthBytes?: number;
}

export interface RawMeta {
  readonly header: {
    readonly version: number;
    readonly pageSize: number;
    readonly fileCount: number;
    readonly pageFileCount: number;
    /** Undefined: the true value. */
    readonly manifestBytes?: number;
    readonly eagerBytes?: number;
    readonly sectionCount?: number;
  };
  readonly id: bigint;
  readonly hashSeed: number;
  readonly sections: readonly RawSection[];
}

const MAGIC_BYTES = 8;

export function parseMeta(bytes: Uint8Array): RawMeta {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const count = view.getUint32(HeaderField.SectionCount, true);
  const sections = Array.from({ length: count }, (_, i) => {
    const entry = HEADER_BYTES + TABLE_ENTRY_BYTES * i;
    const offset = view.getFloat64(entry + 8, true);
    return {
      id: view.getUint32(entry, true),
      owner: view.getUint32(entry + 24, true),
      bytes: bytes.slice(offset, offset + view.getFloat64(entry + 16, true)),
    };
  });
  return {
    header: {
      version: view.getUint32(HeaderField.Version, true),
      pageSize: view.getUint32(HeaderField.PageSize, true),
      fileCount: view.getUint32(HeaderField.FileCount, true),
      pageFileCount: view.getUint32(HeaderField.PageFileCount, true),
    },
    id: view.getBigUint64(HeaderField.Id, true),
    hashSeed: view.getUint32(HeaderField.HashSeed, true),
    sections,
  };
}

const isColumn = (id: number): boolean => id === Section.PageCrcs || id === Section.PageHashes;

/** `magic`: the first bytes of a real file. */
export function composeMeta(raw: RawMeta, magic: Uint8Array): Uint8Array {
  const sections = withBlockCrcs(raw.sections);
  const { offsets, eagerBytes, end } = layOut(sections);
  const file = new Uint8Array(end);
  const view = new DataView(file.buffer);
  for (const [i, section] of sections.entries()) file.set(section.bytes, offsets[i]!);
  for (const [i, section] of sections.entries()) {
    const entry = HEADER_BYTES + TABLE_ENTRY_BYTES * i;
    const offset = section.offset ?? offsets[i]!;
    const lengthBytes = section.lengthBytes ?? section.bytes.byteLength;
    const covered = file.subarray(clamp(offset, end), clamp(offset + lengthBytes, end));
    view.setUint32(entry, section.id, true);
    view.setUint32(entry + 4, isColumn(section.id) ? 0 : crc32(covered), true);
    view.setFloat64(entry + 8, offset, true);
    view.setFloat64(entry + 16, lengthBytes, true);
    view.setUint32(entry + 24, section.owner, true);
  }
  const tableEnd = HEADER_BYTES + TABLE_ENTRY_BYTES * sections.length;
  writeHeader(view, raw, { eagerBytes, end, sectionCount: sections.length });
  file.set(magic.subarray(0, MAGIC_BYTES));
  view.setUint32(HeaderField.TableCrc, crc32(file.subarray(HEADER_BYTES, tableEnd)), true);
  view.setUint32(HeaderField.Crc, crc32(file.subarray(0, HeaderField.Crc)), true);
  return file;
}

/** Columns begin where the eager sections end. */
function layOut(sections: readonly RawSection[]) {
  let end = HEADER_BYTES + TABLE_ENTRY_BYTES * sections.length;
  let eagerBytes = -1;
  const offsets = sections.map(({ id, bytes }) => {
    const isFirstColumn = isColumn(id) && eagerBytes < 0;
    const offset = isColumn(id) && !isFirstColumn ? end : Math.ceil(end / 8) * 8;
    if (isFirstColumn) eagerBytes = offset;
    end = offset + bytes.byteLength;
    return offset;
  });
  return { offsets, eagerBytes: eagerBytes < 0 ? Math.ceil(end / 8) * 8 : eagerBytes, end };
}

/** Checksums of blocks are right, so that a wrong column is a lie and not damage. */
function withBlockCrcs(sections: readonly RawSection[]): readonly RawSection[] {
  const find = (id: number, owner: number) =>
    sections.find((section) => section.id === id && section.owner === owner)?.bytes;
  return sections.map((section) => {
    const crcs = find(Section.PageCrcs, section.owner);
    const hashes = find(Section.PageHashes, section.owner);
    if (section.id !== Section.ColumnCrcs || crcs === undefined || hashes === undefined)
      return section;
    const blocks = new Uint32Array([...blockCrcs(crcs, 4), ...blockCrcs(hashes, 8)]);
    const hasLength = blocks.byteLength === section.bytes.byteLength;
    return hasLength ? { ...section, bytes: new Uint8Array(blocks.buffer) } : section;
  });
}

function blockCrcs(column: Uint8Array, widthBytes: number): number[] {
  const blockBytes = BLOCK_PAGES * widthBytes;
  return Array.from({ length: Math.ceil(column.byteLength / blockBytes) }, (_, block) =>
    crc32(column.subarray(block * blockBytes, (block + 1) * blockBytes)),
  );
}

function writeHeader(
  view: DataView,
  { header, id, hashSeed }: RawMeta,
  found: { eagerBytes: number; end: number; sectionCount: number },
): void {
  view.setUint32(HeaderField.Version, header.version, true);
  view.setUint32(HeaderField.PageSize, header.pageSize, true);
  view.setBigUint64(HeaderField.Id, id, true);
  view.setUint32(HeaderField.HashSeed, hashSeed, true);
  view.setFloat64(HeaderField.ManifestBytes, header.manifestBytes ?? found.end, true);
  view.setFloat64(HeaderField.EagerBytes, header.eagerBytes ?? found.eagerBytes, true);
  view.setUint32(HeaderField.SectionCount, header.sectionCount ?? found.sectionCount, true);
  view.setUint32(HeaderField.FileCount, header.fileCount, true);
  view.setUint32(HeaderField.PageFileCount, header.pageFileCount, true);
}

function clamp(offset: number, end: number): number {
  return Number.isNaN(offset) ? 0 : Math.min(Math.max(0, offset), end);
}
