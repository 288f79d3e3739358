/** A checkpoint to copy: its manifest, and ways to read its page files unchanged. */
import { closeContents, openCheckpoint } from "../checkpoint/directory.ts";
import type { PageFile } from "../checkpoint/format.ts";
import { TRAILER_BYTES } from "../checkpoint/page-file.ts";
import { readBytes } from "../checkpoint/staging.ts";
import { CorruptCheckpointError } from "../errors/errors.ts";
import { getRange } from "../http/range.ts";
import type { RemoteContent } from "../source/remote-source.ts";
import { openRemoteCheckpoint, readWhole } from "./open-checkpoint.ts";
import { isRemote, openPlace, type PlaceOptions } from "./place.ts";

export interface CopiedPageFile extends PageFile {
  /** With its trailer. */
  readonly fileBytes: number;
  /** Bytes [offset, offset + lengthBytes) of the file. */
  read(offset: number, lengthBytes: number): Promise<Uint8Array>;
}

export interface CopySource {
  readonly place: string;
  readonly id: bigint;
  readonly manifest: Uint8Array;
  readonly pageFiles: readonly CopiedPageFile[];
  close(): void;
}

/** @throws {NoCheckpointError} {CorruptCheckpointError} {SyscallError} {RemoteError} */
export async function openCopySource(where: string, options: PlaceOptions): Promise<CopySource> {
  return isRemote(where) ? await openRemoteSource(where, options) : openDirectorySource(where);
}

function openDirectorySource(directory: string): CopySource {
  const { manifest, contents } = openCheckpoint(directory);
  const [meta, ...files] = contents;
  return {
    place: directory,
    id: manifest.id,
    manifest: readExactly(meta!, 0, meta!.sizeBytes),
    pageFiles: manifest.pageFiles.map((pageFile, i) => ({
      ...pageFile,
      fileBytes: pageFile.sizeBytes + TRAILER_BYTES,
      read: async (offset, lengthBytes) => readExactly(files[i]!, offset, lengthBytes),
    })),
    close: () => closeContents(contents),
  };
}

function readExactly(
  { fd, path }: { readonly fd: number; readonly path: string },
  offset: number,
  lengthBytes: number,
): Uint8Array {
  const bytes = readBytes(fd, offset, lengthBytes, path);
  if (bytes.byteLength === lengthBytes) return bytes;
  throw new CorruptCheckpointError(`The file ends at ${offset + bytes.byteLength}`, { path });
}

async function openRemoteSource(where: string, options: PlaceOptions): Promise<CopySource> {
  const place = await openPlace(where, options);
  try {
    const { manifest, contents } = await openRemoteCheckpoint(place);
    const read = async (content: RemoteContent, start: number, lengthBytes: number) => {
      await place.ready();
      const bytes = new Uint8Array(lengthBytes);
      const range = { ...content, start, end: start + lengthBytes };
      await getRange(place.client, range, (piece, at) => bytes.set(piece, at));
      return bytes;
    };
    return {
      place: place.url,
      id: manifest.id,
      manifest: await readWhole(place.client, contents[0]!),
      pageFiles: manifest.pageFiles.map((pageFile, i) => ({
        ...pageFile,
        fileBytes: pageFile.sizeBytes + TRAILER_BYTES,
        read: (offset, lengthBytes) => read(contents[i + 1]!, offset, lengthBytes),
      })),
      close: () => place.close(),
    };
  } catch (error) {
    place.close();
    throw error;
  }
}
