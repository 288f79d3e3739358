/**
 * Fetches the checksums of pages beside the other requests of a start. A load reads them in blocks
 * when it needs them, and units that are read at the same time would each fetch the same block.
 */
import { crc32 } from "../checkpoint/format.ts";
import { BLOCK_PAGES, type ColumnPlace } from "../checkpoint/page-map.ts";
import type { Client } from "../http/client.ts";
import { getRange } from "../http/range.ts";
import type { RemoteContent } from "../source/remote-source.ts";

/** Checksums of 4 GiB of contents. Further ones are read in blocks. */
const CHECKSUM_BYTES_MAX = 2 ** 22;
const PIECE_BYTES = 2 ** 21;

/**
 * The CRC-32 of each page of each column, or null for a column that is not fetched, because it is
 * too long, unreachable or damaged. The load then reads it, and reports the error.
 */
export function fetchChecksums(
  client: Client,
  manifest: RemoteContent,
  columns: readonly ColumnPlace[],
): Promise<(Uint32Array | null)[]> {
  let leftBytes = CHECKSUM_BYTES_MAX;
  const fetched = columns.map(async (column) => {
    leftBytes -= column.count * column.widthBytes;
    if (leftBytes < 0) return null;
    try {
      return await fetchColumn(client, manifest, column);
    } catch {
      // The load reads it in blocks, and reports why it cannot.
      return null;
    }
  });
  return Promise.all(fetched);
}

async function fetchColumn(
  client: Client,
  manifest: RemoteContent,
  { offset, count, widthBytes, blockCrcs }: ColumnPlace,
): Promise<Uint32Array | null> {
  const lengthBytes = count * widthBytes;
  const bytes = new Uint8Array(new SharedArrayBuffer(lengthBytes));
  const pieces: Promise<unknown>[] = [];
  for (let at = 0; at < lengthBytes; at += PIECE_BYTES) {
    const range = { start: offset + at, end: offset + Math.min(lengthBytes, at + PIECE_BYTES) };
    const take = (piece: Uint8Array, pieceAt: number): void => bytes.set(piece, at + pieceAt);
    pieces.push(getRange(client, { ...manifest, ...range }, take));
  }
  await Promise.all(pieces);
  const blockBytes = BLOCK_PAGES * widthBytes;
  const isGood = blockCrcs.every(
    (crc, i) => crc32(bytes.subarray(i * blockBytes, (i + 1) * blockBytes)) === crc,
  );
  return isGood ? new Uint32Array(bytes.buffer) : null;
}
