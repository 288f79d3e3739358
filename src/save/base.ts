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
import { copyColumns, type PageColumns, SLICE_ROWS, wordsOf } from "./build-map.ts";
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
    return { crc: readCrcs(fd, crcs, path), hash: wordsOf(readHashes(fd, hashes, path)) };
  } catch (error) {
    if (error instanceof CorruptCheckpointError) return undefined;
    throw error;
  }
}

function* noteExtents(
  { extents }: PageMap,
  firstFrame: number,
  columns: PageColumns,
  table: FileTable,
): Slices<void> {
  let rank = 0;
  for (let row = 0; row < extents.start.length && rank >= 0; row += SLICE_ROWS) {
    rank = noteRows(extents, row, { columns, rank, firstFrame, table });
    yield;
  }
}

/**
 * Notes SLICE_ROWS extents from `row` on. Returns the rank after them, or -1 at the file's end.
 */
function noteRows(
  extents: PageMap["extents"],
  row: number,
  given: { columns: PageColumns; rank: number; firstFrame: number; table: FileTable },
): number {
  const { columns, firstFrame, table } = given;
  const { frame, framePage, crc, pages } = table;
  const to = { crc, hash: table.hash! };
  const last = Math.min(extents.start.length, row + SLICE_ROWS);
  let { rank } = given;
  for (let i = row; i < last; i++) {
    const start = extents.start[i]!;
    const length = extents.length[i]!;
    const end = start + length;
    // Pages beyond the table's end are not used any more.
    if (end > pages) return -1;
    const number = firstFrame + extents.frame[i]! + 1;
    const offset = extents.framePage[i]! - start;
    for (let page = start; page < end; page++) {
      frame[page] = number;
      framePage[page] = page + offset;
    }
    copyColumns(columns, rank, to, start, length);
    rank += length;
  }
  return rank;
}
