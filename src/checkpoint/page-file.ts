/**
 * A page file: the contents of pages, and a trailer. Contents begin at offset 0. Each frame begins
 * at a multiple of PAGE_SIZE, with zeros between the end of a compressed frame and the next
 * multiple. The file is immutable once its manifest is committed. The trailer is the last page:
 *
 *   magic "\0pgpages" u64, version u32, page size u32, the page file's id u64, contents' bytes f64,
 *   CRC-32 of these 32 bytes u32, zeros to the end of the page.
 *
 * The id distinguishes page files of different checkpoints, so a directory that was copied during a
 * save is refused when it is opened.
 */
import { PAGE_SIZE } from "../pages/units.ts";
import { corrupt, crc32, type PageFile } from "./format.ts";

/** The bytes "\0pgpages", read as a little-endian u64. */
const MAGIC = 0x7365676170677000n;
const VERSION = 1;
const CHECKED_BYTES = 32;
export const TRAILER_BYTES = PAGE_SIZE;

export function encodeTrailer({ id, sizeBytes }: PageFile): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(new ArrayBuffer(TRAILER_BYTES));
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, MAGIC, true);
  view.setUint32(8, VERSION, true);
  view.setUint32(12, PAGE_SIZE, true);
  view.setBigUint64(16, id, true);
  view.setFloat64(24, sizeBytes, true);
  view.setUint32(CHECKED_BYTES, crc32(bytes.subarray(0, CHECKED_BYTES)), true);
  return bytes;
}

/**
 * @throws {CorruptCheckpointError} unless `trailer`, the file's last page, is that of `pageFile`
 */
export function checkTrailer(trailer: Uint8Array, pageFile: PageFile, path: string): void {
  const expected = encodeTrailer(pageFile);
  if (trailer.byteLength === TRAILER_BYTES && Buffer.compare(trailer, expected) === 0) return;
  const offset = pageFile.sizeBytes;
  if (trailer.byteLength < CHECKED_BYTES) throw corrupt(path, "The trailer is cut off", "trailer");
  const view = new DataView(trailer.buffer, trailer.byteOffset, trailer.byteLength);
  const isIntact =
    view.getBigUint64(0, true) === MAGIC &&
    view.getUint32(CHECKED_BYTES, true) === crc32(trailer.subarray(0, CHECKED_BYTES));
  if (isIntact && view.getBigUint64(16, true) !== pageFile.id)
    throw corrupt(
      path,
      "The page file is of another checkpoint: the directory was copied or changed during a save",
      "trailer",
      offset,
    );
  throw corrupt(path, "The trailer does not match the manifest", "trailer", offset);
}

/** The name of a page file in a directory. */
export function pageFileName(id: bigint): string {
  return `pages-${hex(id)}`;
}

export function hex(id: bigint): string {
  return id.toString(16).padStart(16, "0");
}
