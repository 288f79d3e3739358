/**
 * Makes a manifest's bytes (format.ts). Checks the same limits as a load, and throws before
 * anything is written.
 */
import { PAGE_SIZE } from "../pages/units.ts";
import {
  align8,
  crc32,
  HEADER_BYTES,
  HeaderField,
  MAGIC,
  type Manifest,
  type SavedFile,
  Section,
  TABLE_ENTRY_BYTES,
  VERSION,
  WHOLE,
} from "./format.ts";
import { checkLimit, encodeName } from "./limits.ts";
import { BLOCK_PAGES } from "./page-map.ts";

/** A manifest's bytes in order. Opening a manifest reads only the first part. */
export interface EncodedManifest {
  readonly parts: readonly [Uint8Array<ArrayBuffer>, ...Uint8Array[]];
  readonly lengthBytes: number;
}

interface EncodedSection {
  readonly id: number;
  readonly owner: number;
  readonly columns: readonly ArrayBufferView[];
}

/** The places of the sections, and the end of the eager ones. */
interface Layout {
  readonly offsets: Float64Array;
  readonly lengths: Float64Array;
  readonly eagerBytes: number;
  readonly lengthBytes: number;
}

/** @throws {RangeError} if the manifest would exceed a limit */
export function encodeManifest(manifest: Manifest<SavedFile>): EncodedManifest {
  const eager = eagerSections(manifest);
  const columns = columnSections(manifest);
  const layout = layOut(eager, columns);
  const userData = [manifest.userData, ...manifest.files.map((file) => file.userData)];
  const userDataBytes = userData.reduce((sum, bytes) => sum + (bytes?.byteLength ?? 0), 0);
  checkLimit("files", "files", manifest.files.length);
  checkLimit("pageFiles", "page files", manifest.pageFiles.length);
  checkLimit("userDataBytes", "bytes of userData", userDataBytes);
  checkLimit("eagerBytes", "metadata bytes", layout.eagerBytes);
  checkLimit("manifestBytes", "manifest bytes", layout.lengthBytes);
  const bytes = new Uint8Array(new ArrayBuffer(layout.eagerBytes));
  const table = new DataView(bytes.buffer, HEADER_BYTES);
  [...eager, ...columns].forEach(({ id, owner, columns }, i) => {
    const start = layout.offsets[i]!;
    if (i < eager.length) writeColumns(bytes, start, columns);
    const entry = TABLE_ENTRY_BYTES * i;
    const section = bytes.subarray(start, start + layout.lengths[i]!);
    table.setUint32(entry, id, true);
    table.setUint32(entry + 4, i < eager.length ? crc32(section) : 0, true);
    table.setFloat64(entry + 8, start, true);
    table.setFloat64(entry + 16, layout.lengths[i]!, true);
    table.setUint32(entry + 24, owner, true);
  });
  writeHeader(bytes, manifest, eager.length + columns.length, layout);
  const parts = columns.flatMap(({ columns }) => columns.map(bytesOf));
  return { parts: [bytes, ...parts], lengthBytes: layout.lengthBytes };
}

function eagerSections({ files, pageFiles, userData }: Manifest<SavedFile>): EncodedSection[] {
  const sections: EncodedSection[] = [];
  files.forEach((file, owner) => {
    const add = (id: number, ...columns: ArrayBufferView[]) =>
      sections.push({ id, owner, columns });
    const { runs, pageMap } = file;
    const { extents, frames } = pageMap;
    add(Section.Name, nameOf(file.name));
    add(Section.Chunks, file.chunkHuge);
    add(Section.Runs, runs.start, runs.length, runs.state, runs.refs, runs.kind, runs.group);
    add(Section.Extents, extents.start, extents.length, extents.frame, extents.framePage);
    add(
      Section.Frames,
      frames.offset,
      frames.storedBytes,
      frames.content,
      frames.codec,
      frames.pages,
    );
    add(Section.ColumnCrcs, blockCrcs(file.crcs), blockCrcs(file.hashes));
    if (file.userData !== null) add(Section.UserData, file.userData);
  });
  const ids = BigUint64Array.from(pageFiles, ({ id }) => id);
  const sizes = Float64Array.from(pageFiles, ({ sizeBytes }) => sizeBytes);
  sections.push({ id: Section.PageFiles, owner: WHOLE, columns: [ids, sizes] });
  if (userData !== null) sections.push({ id: Section.UserData, owner: WHOLE, columns: [userData] });
  return sections;
}

function columnSections({ files }: Manifest<SavedFile>): EncodedSection[] {
  return [
    ...files.map(({ hashes }, owner) => ({ id: Section.PageHashes, owner, columns: [hashes] })),
    ...files.map(({ crcs }, owner) => ({ id: Section.PageCrcs, owner, columns: [crcs] })),
  ];
}

function nameOf(name: string): Uint8Array {
  const bytes = encodeName(name);
  if (bytes === undefined)
    throw new RangeError(`Expected a name that a checkpoint can hold, got ${JSON.stringify(name)}`);
  return bytes;
}

/** CRC-32 of each block of a column. */
function blockCrcs(column: Uint32Array | BigUint64Array): Uint32Array {
  const crcs = new Uint32Array(Math.ceil(column.length / BLOCK_PAGES));
  for (let block = 0; block < crcs.length; block++) {
    const first = block * BLOCK_PAGES;
    crcs[block] = crc32(bytesOf(column.subarray(first, first + BLOCK_PAGES)));
  }
  return crcs;
}

function bytesOf(column: ArrayBufferView): Uint8Array {
  return new Uint8Array(column.buffer, column.byteOffset, column.byteLength);
}

function layOut(eager: readonly EncodedSection[], columns: readonly EncodedSection[]): Layout {
  const all = [...eager, ...columns];
  const lengths = Float64Array.from(all, ({ columns }) =>
    columns.reduce((sum, column) => sum + column.byteLength, 0),
  );
  const offsets = new Float64Array(all.length);
  let end = HEADER_BYTES + TABLE_ENTRY_BYTES * all.length;
  for (let i = 0; i < eager.length; i++) {
    offsets[i] = align8(end);
    end = offsets[i]! + lengths[i]!;
  }
  const eagerBytes = align8(end);
  end = eagerBytes;
  for (let i = eager.length; i < all.length; i++) {
    offsets[i] = end;
    end += lengths[i]!;
  }
  return { offsets, lengths, eagerBytes, lengthBytes: end };
}

function writeColumns(
  bytes: Uint8Array,
  offset: number,
  columns: readonly ArrayBufferView[],
): void {
  let at = offset;
  for (const column of columns) {
    bytes.set(bytesOf(column), at);
    at += column.byteLength;
  }
}

function writeHeader(
  bytes: Uint8Array<ArrayBuffer>,
  { id, hashSeed, files, pageFiles }: Manifest<SavedFile>,
  sectionCount: number,
  { eagerBytes, lengthBytes }: Layout,
): void {
  const header = new DataView(bytes.buffer, 0, HEADER_BYTES);
  const tableEnd = HEADER_BYTES + TABLE_ENTRY_BYTES * sectionCount;
  header.setBigUint64(HeaderField.Magic, MAGIC, true);
  header.setUint32(HeaderField.Version, VERSION, true);
  header.setUint32(HeaderField.PageSize, PAGE_SIZE, true);
  header.setBigUint64(HeaderField.Id, id, true);
  header.setUint32(HeaderField.HashSeed, hashSeed, true);
  header.setFloat64(HeaderField.ManifestBytes, lengthBytes, true);
  header.setFloat64(HeaderField.EagerBytes, eagerBytes, true);
  header.setUint32(HeaderField.SectionCount, sectionCount, true);
  header.setUint32(HeaderField.TableCrc, crc32(bytes.subarray(HEADER_BYTES, tableEnd)), true);
  header.setUint32(HeaderField.FileCount, files.length, true);
  header.setUint32(HeaderField.PageFileCount, pageFiles.length, true);
  header.setUint32(HeaderField.Crc, crc32(bytes.subarray(0, HeaderField.Crc)), true);
}
