/** Reads the columns that opening a manifest leaves in the file (ColumnPlace). */
import { corrupt, crc32 } from "./format.ts";
import { BLOCK_PAGES, type ColumnPlace } from "./page-map.ts";
import { readInto } from "./staging.ts";

/**
 * A block of a column: its first value and its bytes. `isGood` if the bytes match their checksum.
 */
export interface ColumnBlock {
  readonly first: number;
  readonly bytes: Uint8Array<ArrayBufferLike>;
  readonly isGood: boolean;
}

/**
 * Reads all blocks of a column into `bytes`, and says for each whether it is good.
 * @throws {SyscallError}
 */
export function* readBlocks(
  manifestFd: number,
  { offset, count, widthBytes, blockCrcs }: ColumnPlace,
  bytes: Uint8Array<ArrayBufferLike>,
  path: string,
): Generator<ColumnBlock> {
  for (let block = 0; block < blockCrcs.length; block++) {
    const first = block * BLOCK_PAGES;
    const start = first * widthBytes;
    const end = Math.min(count, first + BLOCK_PAGES) * widthBytes;
    const found = readInto(bytes.subarray(start, end), manifestFd, offset + start, path);
    const isGood = found.byteLength === end - start && crc32(found) === blockCrcs[block];
    yield { first, bytes: found, isGood };
  }
}

/**
 * The CRC-32 of each page.
 * @throws {CorruptCheckpointError} if a block is damaged
 * @throws {SyscallError}
 */
export function readCrcs(manifestFd: number, place: ColumnPlace, path: string): Uint32Array {
  return new Uint32Array(readColumn(manifestFd, place, path, "pageCrcs"));
}

/** The hash of each page. @throws as `readCrcs` */
export function readHashes(manifestFd: number, place: ColumnPlace, path: string): BigUint64Array {
  return new BigUint64Array(readColumn(manifestFd, place, path, "pageHashes"));
}

function readColumn(fd: number, place: ColumnPlace, path: string, name: string): ArrayBufferLike {
  const bytes = new Uint8Array(new SharedArrayBuffer(place.count * place.widthBytes));
  for (const { first, isGood } of readBlocks(fd, place, bytes, path)) {
    if (!isGood)
      throw corrupt(
        path,
        "Block checksum does not match",
        name,
        place.offset + first * place.widthBytes,
      );
  }
  return bytes.buffer;
}
