/**
 * Copies a checkpoint between any two places. Page files stay unchanged, and keep their ids. Those
 * that the destination's checkpoint has are not copied again. The manifest comes last, so the
 * destination has the old checkpoint or the new one.
 */
import { UnsupportedError } from "../errors/errors.ts";
import { type CopiedPageFile, type CopySource, openCopySource } from "./copy-source.ts";
import { type CopyTarget, openCopyTarget } from "./copy-target.ts";
import { type PlaceOptions, resolvePlace } from "./place.ts";

export interface CopyOptions extends PlaceOptions {
  readonly onProgress?: ((progress: CopyProgress) => void) | undefined;
}

/** Bytes of page files. */
export interface CopyProgress {
  readonly copiedBytes: number;
  readonly totalBytes: number;
}

export interface CopyReport {
  /** The checkpoint's id: 16 hexadecimal digits. */
  readonly id: string;
  readonly pageFiles: number;
  /** Page files that the destination had already. */
  readonly reusedPageFiles: number;
  readonly copiedBytes: number;
  readonly metaBytes: number;
}

/** Parts of S3 are at least 5 MiB; this many of them make the largest page file. */
const PIECE_BYTES_MIN = 2 ** 23;
const PIECES_MAX = 9_000;
const PIECES_AT_ONCE = 6;

/**
 * @throws {NoCheckpointError} {CorruptCheckpointError} for the source
 * @throws {CheckpointBusyError} {CheckpointConflictError} for the destination
 * @throws {SyscallError} {RemoteError}
 */
export async function copyCheckpoint(
  from: string,
  to: string,
  options: CopyOptions = {},
): Promise<CopyReport> {
  const { onProgress, ...placeOptions } = options;
  // The working directory may change later.
  const [fromPlace, toPlace] = [resolvePlace(from), resolvePlace(to)];
  const source = await openCopySource(fromPlace, placeOptions);
  try {
    const target = await openCopyTarget(toPlace, placeOptions);
    try {
      return await copy(source, target, onProgress);
    } finally {
      await target.close();
    }
  } finally {
    source.close();
  }
}

async function copy(
  source: CopySource,
  target: CopyTarget,
  onProgress: CopyOptions["onProgress"],
): Promise<CopyReport> {
  const wanted = source.pageFiles.filter(({ id }) => !target.pageFileIds.has(id));
  const totalBytes = wanted.reduce((sum, { fileBytes }) => sum + fileBytes, 0);
  let copiedBytes = 0;
  if (target.checkpointId !== source.id) {
    for (const pageFile of wanted) {
      await copyPageFile(pageFile, target, (bytes) => {
        copiedBytes += bytes;
        onProgress?.({ copiedBytes, totalBytes });
      });
    }
    await target.commit(source);
  }
  return {
    id: source.id.toString(16).padStart(16, "0"),
    pageFiles: source.pageFiles.length,
    reusedPageFiles: source.pageFiles.length - wanted.length,
    copiedBytes,
    metaBytes: source.manifest.byteLength,
  };
}

async function copyPageFile(
  pageFile: CopiedPageFile,
  target: CopyTarget,
  onCopied: (bytes: number) => void,
): Promise<void> {
  const { fileBytes } = pageFile;
  const pieceBytes = Math.max(PIECE_BYTES_MIN, Math.ceil(fileBytes / PIECES_MAX / 4096) * 4096);
  const pieces = Math.ceil(fileBytes / pieceBytes);
  if (pieces > PIECES_MAX)
    throw new UnsupportedError(`A page file of ${fileBytes} bytes is too large to copy`);
  const writer = await target.create(pageFile, pieces);
  let next = 0;
  const work = async (): Promise<void> => {
    while (next < pieces) {
      const number = next++;
      const offset = number * pieceBytes;
      const bytes = await pageFile.read(offset, Math.min(pieceBytes, fileBytes - offset));
      await writer.write(bytes, offset, number);
      onCopied(bytes.byteLength);
    }
  };
  try {
    await Promise.all(Array.from({ length: Math.min(PIECES_AT_ONCE, pieces) }, work));
    await writer.finish();
  } catch (error) {
    next = pieces;
    await writer.abort();
    throw error;
  }
}
