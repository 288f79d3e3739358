/**
 * The base of an incremental save: the checkpoint that is at the destination. A page whose contents
 * it has keeps its place there, and is not written again.
 */
import type { OpenCheckpoint } from "../checkpoint/directory.ts";
import { readCrcs, readHashes } from "../checkpoint/columns.ts";
import type { FrameList } from "./frame-list.ts";
import type { FileTable } from "./save-table.ts";

/** Notes in the save table of the MemoryFile `name` what the base has of it. */
export function noteBase(
  { manifest, contents }: OpenCheckpoint,
  name: string,
  table: FileTable,
  frames: FrameList,
): void {
  const file = manifest.files.find((other) => other.name === name);
  if (file === undefined || table.hash === null) return;
  const { fd, path } = contents[0]!;
  const crcs = readCrcs(fd, file.crcs, path);
  const hashes = readHashes(fd, file.hashes, path);
  const { extents, frames: rows } = file.pageMap;
  const first = frames.count;
  for (let row = 0; row < rows.codec.length; row++)
    frames.add(rows.content[row]! - 1, {
      codec: rows.codec[row]!,
      pages: rows.pages[row]!,
      offset: rows.offset[row]!,
      storedBytes: rows.storedBytes[row]!,
    });
  let rank = 0;
  for (let i = 0; i < extents.start.length; i++) {
    const start = extents.start[i]!;
    const length = extents.length[i]!;
    // A file that has shrunk to nothing behind the base's pages cannot have them.
    if (start + length > table.frame.length) break;
    table.frame.fill(first + extents.frame[i]! + 1, start, start + length);
    for (let page = 0; page < length; page++)
      table.framePage[start + page] = extents.framePage[i]! + page;
    table.crc.set(crcs.subarray(rank, rank + length), start);
    table.hash.set(hashes.subarray(rank, rank + length), start);
    rank += length;
  }
}
