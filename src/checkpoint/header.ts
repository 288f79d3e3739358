/**
 * Decodes and checks the manifest's header: the first HEADER_BYTES of a file decide whether more of
 * it is read.
 */
import type { CorruptCheckpointError } from "../errors/errors.ts";
import { PAGE_SIZE } from "../pages/units.ts";
import {
  align8,
  corrupt,
  crc32,
  HEADER_BYTES,
  HeaderField,
  MAGIC,
  TABLE_ENTRY_BYTES,
  VERSION,
} from "./format.ts";
import { LIMITS } from "./limits.ts";

/** The most sections that one owner has. */
const SECTIONS_PER_OWNER = 9;

/**
 * Called with each problem. If it throws, as in a load, decoding ends. If it returns, decoding
 * continues where it can, and leaves out the parts that depend on the damaged one.
 */
export type Report = (problem: CorruptCheckpointError) => void;

export interface Header {
  readonly id: bigint;
  readonly hashSeed: number;
  readonly manifestBytes: number;
  /** Bytes of header, table and eager sections. */
  readonly eagerBytes: number;
  readonly sectionCount: number;
  /** The end of the section table. */
  readonly tableEnd: number;
  readonly fileCount: number;
  readonly pageFileCount: number;
}

/**
 * Decodes the header of a manifest of `sizeBytes`. Problems that leave the rest readable are only
 * reported.
 * @throws {CorruptCheckpointError} if nothing after the header can be read
 */
export function decodeHeader(
  bytes: Uint8Array,
  sizeBytes: number,
  path: string,
  report: Report,
): Header {
  if (bytes.byteLength < HEADER_BYTES)
    throw corrupt(path, `Expected at least ${HEADER_BYTES} bytes, got ${bytes.byteLength}`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const refuse = (message: string, field: number) => corrupt(path, message, "header", field);
  if (view.getBigUint64(HeaderField.Magic, true) !== MAGIC)
    throw refuse("This is not a pgalloc checkpoint", HeaderField.Magic);
  const version = view.getUint32(HeaderField.Version, true);
  if (version !== VERSION)
    throw refuse(`Expected format version ${VERSION}, got ${version}`, HeaderField.Version);
  const pageSize = view.getUint32(HeaderField.PageSize, true);
  if (pageSize !== PAGE_SIZE)
    throw refuse(`Expected pages of ${PAGE_SIZE} bytes, got ${pageSize}`, HeaderField.PageSize);
  if (view.getUint32(HeaderField.Crc, true) !== crc32(bytes.subarray(0, HeaderField.Crc)))
    report(refuse("Header checksum does not match", HeaderField.Crc));
  const manifestBytes = view.getFloat64(HeaderField.ManifestBytes, true);
  if (manifestBytes !== sizeBytes)
    report(refuse(`Expected ${manifestBytes} bytes, got ${sizeBytes}`, HeaderField.ManifestBytes));
  const header = { manifestBytes, ...decodeCounts(view, sizeBytes, refuse) };
  return {
    ...header,
    id: view.getBigUint64(HeaderField.Id, true),
    hashSeed: view.getUint32(HeaderField.HashSeed, true),
  };
}

function decodeCounts(
  view: DataView,
  sizeBytes: number,
  refuse: (message: string, field: number) => CorruptCheckpointError,
): Pick<Header, "fileCount" | "pageFileCount" | "sectionCount" | "tableEnd" | "eagerBytes"> {
  const fileCount = view.getUint32(HeaderField.FileCount, true);
  if (fileCount < 1 || fileCount > LIMITS.files)
    throw refuse(`Expected 1 to ${LIMITS.files} files, got ${fileCount}`, HeaderField.FileCount);
  const pageFileCount = view.getUint32(HeaderField.PageFileCount, true);
  if (pageFileCount > LIMITS.pageFiles)
    throw refuse(
      `Expected at most ${LIMITS.pageFiles} page files, got ${pageFileCount}`,
      HeaderField.PageFileCount,
    );
  const sectionCount = view.getUint32(HeaderField.SectionCount, true);
  const tableEnd = HEADER_BYTES + TABLE_ENTRY_BYTES * sectionCount;
  const eagerBytes = view.getFloat64(HeaderField.EagerBytes, true);
  if (sectionCount > SECTIONS_PER_OWNER * (fileCount + 1))
    throw refuse(`Section count ${sectionCount} is out of bounds`, HeaderField.SectionCount);
  const isInFile = eagerBytes >= tableEnd && eagerBytes <= Math.min(sizeBytes, LIMITS.eagerBytes);
  if (!isInFile || align8(eagerBytes) !== eagerBytes)
    throw refuse(`Metadata of ${eagerBytes} bytes is out of bounds`, HeaderField.EagerBytes);
  return { fileCount, pageFileCount, sectionCount, tableEnd, eagerBytes };
}

/** The checkpoint's id; undefined if the bytes are too short to have one. */
export function idOf(header: Uint8Array): bigint | undefined {
  if (header.byteLength < HEADER_BYTES) return undefined;
  return new DataView(header.buffer, header.byteOffset).getBigUint64(HeaderField.Id, true);
}
