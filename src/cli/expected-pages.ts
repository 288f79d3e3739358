/**
 * The expected checksums and hashes of a checkpoint's pages: the columns of the manifest, read
 * block by block, without damaged blocks.
 */
import { readBlocks } from "../checkpoint/columns.ts";
import type { OpenContent } from "../checkpoint/directory.ts";
import { corrupt } from "../checkpoint/format.ts";
import type { ColumnPlace } from "../checkpoint/page-map.ts";
import type { CheckableContents } from "./checkpoint-reader.ts";

/** Indexed by rank. null: the format has none. */
export interface Expected {
  /** NaN: in a damaged block. */
  readonly crcs: Float64Array | null;
  /** null: in a damaged block. */
  readonly hashes: readonly (bigint | null)[] | null;
}

/** Reports damaged blocks. @throws {SyscallError} */
export function readExpected(
  { crcs, hashes }: CheckableContents,
  manifest: OpenContent | null | undefined,
  report: (problem: string) => void,
): Expected {
  if (manifest === null || manifest === undefined || crcs === null || hashes === null)
    return { crcs: null, hashes: null };
  const expectedCrcs = new Float64Array(crcs.count).fill(Number.NaN);
  forEachGoodBlock(crcs, manifest, "pageCrcs", report, (first, bytes) => {
    expectedCrcs.set(new Uint32Array(bytes), first);
  });
  const expectedHashes: (bigint | null)[] = new Array(hashes.count).fill(null);
  forEachGoodBlock(hashes, manifest, "pageHashes", report, (first, bytes) => {
    new BigUint64Array(bytes).forEach((hash, i) => {
      expectedHashes[first + i] = hash;
    });
  });
  return { crcs: expectedCrcs, hashes: expectedHashes };
}

function forEachGoodBlock(
  place: ColumnPlace,
  { fd, path }: OpenContent,
  name: string,
  report: (problem: string) => void,
  visit: (first: number, bytes: ArrayBuffer) => void,
): void {
  const column = new Uint8Array(place.count * place.widthBytes);
  for (const { first, bytes, isGood } of readBlocks(fd, place, column, path)) {
    const offset = place.offset + first * place.widthBytes;
    if (isGood) visit(first, new Uint8Array(bytes).buffer);
    else report(corrupt(path, "Block checksum does not match", name, offset).message);
  }
}
