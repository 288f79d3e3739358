/**
 * Reads an image from the files of a checkpoint: length, message, rules, places of contents. It
 * reads the metadata and, without a pages file, the headers between the contents, but not the
 * contents.
 */
import { CorruptCheckpointError } from "../errors/errors.ts";
import type { MemoryFileImage } from "./image.ts";
import { type CheckpointLimits, decodeMetadata } from "./metadata.ts";
import {
  type ByteSource,
  locateInStream,
  locateInPagesFile,
  readMetadataMessage,
} from "./stream.ts";
import { validateMetadata } from "./validate.ts";

export interface ReadImageOptions extends CheckpointLimits {
  /** Offset of this MemoryFile's metadata, if others come before it. Default 0. */
  readonly metadataOffset?: number;
  /** Offset of its contents in the pages file. Default 0. */
  readonly pagesOffset?: number;
  /** True if other MemoryFiles may follow, so the files need not end here. Default false. */
  readonly moreFollow?: boolean;
}

export interface ReadImage {
  readonly image: MemoryFileImage;
  /** Offset after the metadata that was read, including contents in the same stream. */
  readonly metadataEnd: number;
  /** Offset after the last page in the pages file; equals `metadataEnd` without a pages file. */
  readonly pagesEnd: number;
}

/**
 * @param metadata `pages_meta.img`
 * @param pagesFile `pages.img`, for its size; null if contents are in `metadata`
 * @throws {CorruptCheckpointError} if gVisor would not have written the files, or `options` do not
 * allow them
 */
export function readImage(
  metadata: ByteSource,
  pagesFile: { readonly path?: string; readonly sizeBytes: number } | null,
  options: ReadImageOptions = {},
): ReadImage {
  const place = metadata.path === undefined ? {} : { path: metadata.path };
  const message = readMetadataMessage(metadata, options.metadataOffset ?? 0, options);
  const decoded = decodeMetadata(message.bytes, options, { ...place, offset: message.offset });
  const { chunkHuge, runs, committed } = validateMetadata(decoded, options, metadata.path);
  const { extents, end } =
    pagesFile === null
      ? locateInStream(committed, metadata, message.end)
      : locateInPagesFile(committed, pagesFile, options.pagesOffset ?? 0);
  const metadataEnd = pagesFile === null ? end : message.end;
  if (options.moreFollow !== true) {
    checkEnd("Metadata", metadata, metadataEnd);
    if (pagesFile !== null) checkEnd("Pages file", pagesFile, end);
  }
  return { image: { chunkHuge, runs, extents }, metadataEnd, pagesEnd: end };
}

/** @throws {CorruptCheckpointError} if the file continues after `end` */
export function checkEnd(
  what: string,
  file: { readonly path?: string; readonly sizeBytes: number },
  end: number,
): void {
  if (file.sizeBytes === end) return;
  throw new CorruptCheckpointError(`${what} should end here, but has ${file.sizeBytes} bytes`, {
    ...(file.path === undefined ? {} : { path: file.path }),
    offset: end,
  });
}
