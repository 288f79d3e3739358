/**
 * Lists all MemoryFiles of a checkpoint, with the place of each one's metadata and contents. A
 * checkpoint of one file is only its metadata (MemoryFile.SaveTo in gVisor). A kernel's checkpoint
 * has its main file, the list of the other files' resource ids (owners.ts), and these files in that
 * order. The contents of all are in the one pages file, or in the stream, in the same order.
 */
import { CorruptCheckpointError } from "../errors/errors.ts";
import type { MemoryFileImage } from "./image.ts";
import { formatResourceId, readOwners } from "./owners.ts";
import { checkEnd, type ReadImageOptions, readImage } from "./read-image.ts";
import type { ByteSource } from "./stream.ts";

/**
 * The id of the main file of a kernel's checkpoint, and of an only file. gVisor gives them no id.
 */
export const MAIN_ID = "";

/**
 * @returns images by id, in the order of the checkpoint
 * @throws {CorruptCheckpointError} if gVisor would not have written the files
 */
export function readCheckpoint(
  metadata: ByteSource,
  pagesFile: { readonly path?: string; readonly sizeBytes: number } | null,
): Map<string, MemoryFileImage> {
  const images = new Map<string, MemoryFileImage>();
  let next: ReadImageOptions & { metadataOffset: number; pagesOffset: number } = {
    metadataOffset: 0,
    pagesOffset: 0,
    moreFollow: true,
  };
  const readNext = (id: string) => {
    const { image, metadataEnd, pagesEnd } = readImage(metadata, pagesFile, next);
    images.set(id, image);
    next = { ...next, metadataOffset: metadataEnd, pagesOffset: pagesEnd };
  };
  readNext(MAIN_ID);
  if (next.metadataOffset < metadata.sizeBytes) {
    const { owners, end } = readOwners(metadata, next.metadataOffset);
    next.metadataOffset = end;
    for (const owner of owners) {
      const id = formatResourceId(owner);
      if (images.has(id)) {
        throw new CorruptCheckpointError(`Two MemoryFiles have the id ${JSON.stringify(id)}`, {
          ...(metadata.path === undefined ? {} : { path: metadata.path }),
          section: "owners",
        });
      }
      readNext(id);
    }
  }
  checkEnd("Metadata", metadata, next.metadataOffset);
  if (pagesFile !== null) checkEnd("Pages file", pagesFile, next.pagesOffset);
  return images;
}
