/**
 * A native checkpoint's `meta` file taken apart into header, table and sections, and put together again with whatever
 * somebody wrote into them, checksums correct: what an attacker has who knows the format (src/checkpoint/format.ts).
 */
import { crc32, HEADER_BYTES, TABLE_ENTRY_BYTES } from "../../../src/checkpoint/format.ts";

export interface RawSection {
  readonly id: number;
  /** The MemoryFile that it is of, or WHOLE. */
  readonly owner: number;
  readonly bytes: Uint8Array;
  /** What the table says, if not the truth. */
  readonly offset?: number;
  readonly lengthBytes?: number;
}

export interface RawMeta {
  readonly header: {
    readonly version: number;
    readonly pageSize: number;
    readonly pagesBytes: number;
    /** Undefined: the truth. */
    readonly fileBytes?: number;
    readonly sectionCount?: number;
    readonly fileCount: number;
  };
  readonly id: bigint;
  readonly sections: readonly RawSection[];
}

const MAGIC_BYTES = 8;
/** Fields of the header, by offset. */
const At = {
  Version: 8,
  PageSize: 12,
  Id: 16,
  PagesBytes: 24,
  FileBytes: 32,
  SectionCount: 40,
  TableCrc: 44,
  FileCount: 48,
  Crc: 60,
};

export function parseMeta(bytes: Uint8Array): RawMeta {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const sections = Array.from({ length: view.getUint32(At.SectionCount, true) }, (_, i) => {
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
      version: view.getUint32(At.Version, true),
      pageSize: view.getUint32(At.PageSize, true),
      pagesBytes: view.getFloat64(At.PagesBytes, true),
      fileCount: view.getUint32(At.FileCount, true),
    },
    id: view.getBigUint64(At.Id, true),
    sections,
  };
}

/** `magic`: the first bytes of a real file. */
export function composeMeta({ header, id, sections }: RawMeta, magic: Uint8Array): Uint8Array {
  const tableEnd = HEADER_BYTES + TABLE_ENTRY_BYTES * sections.length;
  let end = tableEnd;
  const offsets = sections.map(({ bytes }) => {
    const offset = Math.ceil(end / 8) * 8;
    end = offset + bytes.byteLength;
    return offset;
  });
  const file = new Uint8Array(end);
  const view = new DataView(file.buffer);
  for (const [i, section] of sections.entries()) file.set(section.bytes, offsets[i]!);
  for (const [i, section] of sections.entries()) {
    const entry = HEADER_BYTES + TABLE_ENTRY_BYTES * i;
    const offset = section.offset ?? offsets[i]!;
    const lengthBytes = section.lengthBytes ?? section.bytes.byteLength;
    view.setUint32(entry, section.id, true);
    view.setUint32(
      entry + 4,
      crc32(file.subarray(clamp(offset, end), clamp(offset + lengthBytes, end))),
      true,
    );
    view.setFloat64(entry + 8, offset, true);
    view.setFloat64(entry + 16, lengthBytes, true);
    view.setUint32(entry + 24, section.owner, true);
  }
  file.set(magic.subarray(0, MAGIC_BYTES));
  view.setUint32(At.Version, header.version, true);
  view.setUint32(At.PageSize, header.pageSize, true);
  view.setBigUint64(At.Id, id, true);
  view.setFloat64(At.PagesBytes, header.pagesBytes, true);
  view.setFloat64(At.FileBytes, header.fileBytes ?? end, true);
  view.setUint32(At.SectionCount, header.sectionCount ?? sections.length, true);
  view.setUint32(At.FileCount, header.fileCount, true);
  view.setUint32(At.TableCrc, crc32(file.subarray(HEADER_BYTES, tableEnd)), true);
  view.setUint32(At.Crc, crc32(file.subarray(0, At.Crc)), true);
  return file;
}

function clamp(offset: number, end: number): number {
  return Number.isNaN(offset) ? 0 : Math.min(Math.max(0, offset), end);
}
