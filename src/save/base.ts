/**
 * The base of an incremental save: the checkpoint at the destination. A page whose contents it has
 * keeps its place there, and is not written again.
 */
import type { OpenCheckpoint, OpenContent } from "../checkpoint/directory.ts";
import type { DecodedFile } from "../checkpoint/format.ts";
import { readCrcs, readHashes } from "../checkpoint/columns.ts";
import type { PageMap } from "../checkpoint/page-map.ts";
import { CorruptCheckpointError } from "../errors/errors.ts";
import type { Slices } from "../threads/slices.ts";
import { SLICE_ROWS, wordsOf } from "./build-map.ts";
import type { FrameList } from "./frame-list.ts";
import type { FileTable } from "./save-table.ts";

/**
 * Enters the base's pages of the MemoryFile `name` into the save table. False if the base has none
 * of it, or not all of it can be read. Then all contents are written.
 */
export function* noteBase(
  { manifest, contents }: OpenCheckpoint,
  name: string,
  table: FileTable,
  frames: FrameList,
): Slices<boolean> {
  const file = manifest.files.find((other) => other.name === name);
  if (file === undefined || table.hash === null) return false;
  const columns = readColumns(contents[0]!, file);
  if (columns === undefined) return false;
  const { frames: rows } = file.pageMap;
  const first = frames.count;
  for (let row = 0; row < rows.codec.length; row++)
    frames.add(rows.content[row]! - 1, {
      codec: rows.codec[row]!,
      pages: rows.pages[row]!,
      offset: rows.offset[row]!,
      storedBytes: rows.storedBytes[row]!,
    });
  yield* noteExtents(file.pageMap, first, columns, table);
  return true;
}

/** Undefined if the columns are damaged. */
function readColumns({ fd, path }: OpenContent, { crcs, hashes }: DecodedFile) {
  try {
    return { crcs: readCrcs(fd, crcs, path), hashes: wordsOf(readHashes(fd, hashes, path)) };
  } catch (error) {
    if (error instanceof CorruptCheckpointError) return undefined;
    throw error;
  }
}

function* noteExtents(
  { extents }: PageMap,
  firstFrame: number,
  { crcs, hashes }: { readonly crcs: Uint32Array; readonly hashes: Uint32Array },
  { frame, framePage, crc, hash, pages }: FileTable,
): Slices<void> {
  let rank = 0;
  for (let i = 0; i < extents.start.length; i++) {
    const start = extents.start[i]!;
    const length = extents.length[i]!;
    const end = start + length;
    // Pages behind the file's end are not used any more.
    if (end > pages) return;
    frame.fill(firstFrame + extents.frame[i]! + 1, start, end);
    const offset = extents.framePage[i]! - start;
    for (let page = start; page < end; page++) framePage[page] = page + offset;
    crc.set(crcs.subarray(rank, rank + length), start);
    hash!.set(hashes.subarray(2 * rank, 2 * (rank + length)), 2 * start);
    rank += length;
    if (i % SLICE_ROWS === SLICE_ROWS - 1) yield;
  }
}
