/**
 * The manifest's section table. Each section begins where the one before ends. So a checksum or a
 * known value covers every byte, and no two sections share one: otherwise a small file could ask
 * for a thousand copies of its user data.
 */
import {
  align8,
  corrupt,
  crc32,
  HEADER_BYTES,
  HeaderField,
  SECTION_NAMES,
  Section,
  TABLE_ENTRY_BYTES,
  WHOLE,
} from "./format.ts";
import type { Header, Report } from "./header.ts";

/** Thrown for a part whose damage has been reported already. */
export class AlreadyReported extends Error {}

/** A section that is read on first use. Numbers are bytes of the manifest. */
export interface ColumnSection {
  readonly offset: number;
  readonly lengthBytes: number;
}

interface Entry {
  readonly id: number;
  readonly crc: number;
  readonly offset: number;
  readonly lengthBytes: number;
  readonly owner: number;
}

/** The sections of a manifest whose table has been checked. */
export class Sections {
  private readonly bytes: Uint8Array;
  private readonly path: string;
  /** By `id/owner`. null: the section is damaged. */
  private readonly entries = new Map<string, Entry | null>();

  constructor(bytes: Uint8Array, header: Header, path: string, report: Report) {
    this.bytes = bytes;
    this.path = path;
    const { sectionCount, tableEnd } = header;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const tableCrc = view.getUint32(HeaderField.TableCrc, true);
    if (tableCrc !== crc32(bytes.subarray(HEADER_BYTES, tableEnd))) {
      const at = HeaderField.TableCrc;
      report(corrupt(path, "Section table checksum does not match", "header", at));
    }
    const layout = new Layout(bytes, header);
    for (let i = 0; i < sectionCount; i++) {
      const at = HEADER_BYTES + TABLE_ENTRY_BYTES * i;
      this.add(readEntry(view, at), at, header, layout, report);
    }
    const mistake = layout.mistakeAtEnd();
    if (mistake !== undefined) report(corrupt(path, mistake));
  }

  private add(entry: Entry, at: number, header: Header, layout: Layout, report: Report): void {
    const { id, owner, offset, lengthBytes } = entry;
    const name = SECTION_NAMES[id] ?? `${id}`;
    const key = `${id}/${owner}`;
    const mistake =
      layout.mistakeOf(entry) ??
      mistakeOfOwner(entry, header.fileCount) ??
      (this.entries.has(key) ? "Section is there twice" : undefined);
    let isGood = mistake === undefined;
    if (mistake !== undefined) report(corrupt(this.path, mistake, name, at));
    else if (!isColumn(id)) {
      isGood = entry.crc === crc32(this.bytes.subarray(offset, offset + lengthBytes));
      if (!isGood) report(corrupt(this.path, "Section checksum does not match", name, offset));
    } else if (entry.crc !== 0) {
      isGood = false;
      report(corrupt(this.path, `Expected checksum 0, got ${entry.crc}`, name, at));
    }
    this.entries.set(key, isGood ? entry : null);
  }

  /** @throws {AlreadyReported} if the section is damaged */
  find(id: number, owner: number): Uint8Array | undefined {
    const entry = this.entries.get(`${id}/${owner}`);
    if (entry === null) throw new AlreadyReported();
    if (entry === undefined) return undefined;
    return this.bytes.subarray(entry.offset, entry.offset + entry.lengthBytes);
  }

  /**
   * @throws {CorruptCheckpointError} if there is no such section
   * @throws {AlreadyReported} if it is damaged
   */
  require(id: number, owner: number): Uint8Array {
    const found = this.find(id, owner);
    if (found === undefined) throw this.missing(id);
    return found;
  }

  /** The place of a section of `count` values. @throws as `require` */
  requireColumn(id: number, owner: number, count: number, widthBytes: number): ColumnSection {
    const entry = this.entries.get(`${id}/${owner}`);
    if (entry === null) throw new AlreadyReported();
    if (entry === undefined) throw this.missing(id);
    if (entry.lengthBytes !== count * widthBytes)
      throw corrupt(
        this.path,
        `Expected ${count * widthBytes} bytes for ${count} pages, got ${entry.lengthBytes}`,
        SECTION_NAMES[id],
      );
    return entry;
  }

  private missing(id: number) {
    return corrupt(this.path, `Section ${SECTION_NAMES[id]} is missing`);
  }
}

function isColumn(id: number): boolean {
  return id === Section.PageHashes || id === Section.PageCrcs;
}

function readEntry(view: DataView, at: number): Entry {
  return {
    id: view.getUint32(at, true),
    crc: view.getUint32(at + 4, true),
    offset: view.getFloat64(at + 8, true),
    lengthBytes: view.getFloat64(at + 16, true),
    owner: view.getUint32(at + 24, true),
  };
}

function mistakeOfOwner({ id, owner }: Entry, fileCount: number): string | undefined {
  if (SECTION_NAMES[id] === undefined) return `Section ${id} is unknown`;
  const isWhole = owner === WHOLE;
  if (!isWhole && owner >= fileCount) return `Owner ${owner} is not one of ${fileCount} files`;
  if (id === Section.UserData || isWhole === (id === Section.PageFiles)) return undefined;
  return `Owner ${owner} cannot have this section`;
}

/**
 * The places that sections may have: eager ones at multiples of 8, columns without gaps, nothing
 * after the last.
 */
class Layout {
  private readonly bytes: Uint8Array;
  private readonly header: Header;
  /** The end of the last section; undefined if unknown. */
  private end: number | undefined;
  private isInColumns = false;

  constructor(bytes: Uint8Array, header: Header) {
    this.bytes = bytes;
    this.header = header;
    this.end = header.tableEnd;
  }

  mistakeOf({ id, offset, lengthBytes }: Entry): string | undefined {
    const { end, isInColumns } = this;
    const { eagerBytes, manifestBytes, tableEnd } = this.header;
    const isOfColumns = isColumn(id);
    this.end = undefined;
    if (isInColumns && !isOfColumns) return "Section is after the columns";
    this.isInColumns = isOfColumns;
    const expected = this.startBehind(end, isInColumns);
    if (expected !== undefined && offset !== expected) return `Offset ${offset} is out of place`;
    const isInBounds =
      Number.isSafeInteger(offset) &&
      Number.isSafeInteger(lengthBytes) &&
      offset >= (isOfColumns ? eagerBytes : tableEnd) &&
      lengthBytes >= 0 &&
      lengthBytes <= (isOfColumns ? manifestBytes : eagerBytes) - offset;
    if (!isInBounds || (!isOfColumns && offset % 8 !== 0))
      return `Bytes [${offset}, ${offset + lengthBytes}) are out of bounds`;
    this.end = offset + lengthBytes;
    return isInColumns ? undefined : this.mistakeBetween(end ?? offset, offset);
  }

  /** The required start of a section after `end`; undefined if unknown. */
  private startBehind(end: number | undefined, wasInColumns: boolean): number | undefined {
    if (wasInColumns) return end;
    if (this.isInColumns) return this.header.eagerBytes;
    return end === undefined ? undefined : align8(end);
  }

  private mistakeBetween(start: number, end: number): string | undefined {
    for (let at = start; at < end; at++) {
      if (this.bytes[at] !== 0) return `Byte ${at} between sections is ${this.bytes[at]}, not 0`;
    }
    return undefined;
  }

  mistakeAtEnd(): string | undefined {
    const { end, header } = this;
    if (end === undefined) return undefined;
    if (!this.isInColumns) return "The columns are missing";
    if (end === header.manifestBytes) return undefined;
    return `${header.manifestBytes - end} bytes are after the last section`;
  }
}
