/**
 * A checkpoint's directory, as a load sees it: the manifest `meta`, and the page files that it
 * names (`pages-<id>`).
 *
 * A save replaces `meta` by a rename, and only then removes page files that the new manifest does
 * not name. A load opens the manifest and all its page files at once, and checks each page file's
 * id and size by its trailer. If a file is missing or does not match, and `meta` has been replaced
 * meanwhile, the load starts again. Open files stay readable during any save.
 *
 * A load follows symbolic links, to the directory and to the files in it, because stores and
 * volumes use them, and a program that may write links here may write checkpoints as well. A save
 * replaces a link; it never writes through one.
 */
import {
  closeFile,
  fileStatus,
  O_DIRECTORY,
  O_RDONLY,
  openFile,
  SyscallError,
} from "../../ffi/index.ts";
import { CorruptCheckpointError, NoCheckpointError } from "../errors/errors.ts";
import { type DecodedManifest, type ExaminedManifest, examineManifest } from "./decode.ts";
import { corrupt, HEADER_BYTES, type PageFile } from "./format.ts";
import { decodeHeader, idOf, type Report } from "./header.ts";
import { LIMITS } from "./limits.ts";
import { checkTrailer, pageFileName, TRAILER_BYTES } from "./page-file.ts";
import { closeAll, openIfExists, readBytes, readInto } from "./staging.ts";

export const META = "meta";
const OPEN_ATTEMPTS = 16;

/** A file of the checkpoint, open for reading. */
export interface OpenContent {
  readonly fd: number;
  readonly path: string;
  readonly sizeBytes: number;
}

/** A whole checkpoint. The caller closes the descriptors (`closeContents`). */
export interface OpenCheckpoint {
  readonly manifest: DecodedManifest;
  /** 0: the manifest; 1 and up: its page files. */
  readonly contents: readonly OpenContent[];
}

/** The readable parts of a checkpoint that may be damaged. */
export interface ExaminedCheckpoint extends ExaminedManifest {
  /** All problems of the metadata, and of the page files' ids and sizes. */
  readonly problems: readonly CorruptCheckpointError[];
  /** As in OpenCheckpoint; null if missing. */
  readonly contents: readonly (OpenContent | null)[];
}

/**
 * @throws {NoCheckpointError} if there is no manifest
 * @throws {CorruptCheckpointError} if part of it is damaged
 * @throws {SyscallError} if the directory cannot be read
 */
export function openCheckpoint(directory: string): OpenCheckpoint {
  const { manifest, contents, problems } = examineCheckpoint(directory);
  if (manifest !== null && problems.length === 0)
    return { manifest, contents: contents as OpenContent[] };
  closeContents(contents);
  throw problems[0];
}

export function closeContents(contents: readonly (OpenContent | null)[]): void {
  closeAll(contents.map((content) => () => content !== null && closeFile(content.fd)));
}

/** As `openCheckpoint`, but continues after problems. @throws {NoCheckpointError} {SyscallError} */
export function examineCheckpoint(directory: string): ExaminedCheckpoint {
  const directoryFd = openDirectory(directory);
  try {
    for (let attempt = 1; ; attempt++) {
      const found = examineOnce(directoryFd, directory);
      const mayRetry = found.problems.length > 0 && attempt < OPEN_ATTEMPTS;
      if (!mayRetry || readId(directoryFd) === (found.header?.id ?? undefined)) return found;
      closeContents(found.contents);
    }
  } finally {
    closeFile(directoryFd);
  }
}

function openDirectory(path: string): number {
  try {
    return openFile(path, O_RDONLY | O_DIRECTORY);
  } catch (error) {
    if (error instanceof SyscallError && error.code === "ENOENT")
      throw new NoCheckpointError(path, error);
    throw error;
  }
}

function examineOnce(directoryFd: number, directory: string): ExaminedCheckpoint {
  const problems: CorruptCheckpointError[] = [];
  const report: Report = (problem) => problems.push(problem);
  const metaFd = openIfExists(directoryFd, META);
  if (metaFd === undefined) throw new NoCheckpointError(directory);
  const contents: (OpenContent | null)[] = [];
  try {
    const path = `${directory}/${META}`;
    const content = describe(metaFd, path);
    contents.push(content);
    const found = readManifest(content, report);
    for (const pageFile of found.pageFiles)
      contents.push(openPageFile(directoryFd, directory, pageFile, report));
    return { ...found, problems, contents };
  } catch (error) {
    closeContents(contents.length > 0 ? contents : [{ fd: metaFd, path: META, sizeBytes: 0 }]);
    throw error;
  }
}

/**
 * @throws {CorruptCheckpointError} for anything but a file (a FIFO, for example), which is never
 * read
 */
function describe(fd: number, path: string): OpenContent {
  const { sizeBytes, isFile } = fileStatus(fd);
  if (!isFile) throw corrupt(path, "Expected a file, got a directory, a pipe or a device");
  return { fd, path, sizeBytes };
}

/** Reads the part that opening needs, without the page columns. */
function readManifest({ fd, path, sizeBytes }: OpenContent, report: Report): ExaminedManifest {
  if (sizeBytes < HEADER_BYTES || sizeBytes > LIMITS.manifestBytes) {
    report(
      corrupt(path, `Expected ${HEADER_BYTES} to ${LIMITS.manifestBytes} bytes, got ${sizeBytes}`),
    );
    return { header: null, manifest: null, pageFiles: [], checkable: [] };
  }
  const header = readBytes(fd, 0, HEADER_BYTES, path);
  const lengthBytes = eagerBytesOf(header, sizeBytes, path);
  // Shared, so that loading threads use its columns in place.
  const bytes = readInto(new Uint8Array(new SharedArrayBuffer(lengthBytes)), fd, 0, path);
  return examineManifest(bytes, sizeBytes, path, report);
}

/** How many bytes to read: only the header if the header is wrong. */
function eagerBytesOf(header: Uint8Array, sizeBytes: number, path: string): number {
  let isGood = true;
  try {
    const { eagerBytes } = decodeHeader(header, sizeBytes, path, () => {
      isGood = sizeBytes <= UNCHECKED_BYTES;
    });
    if (isGood) return eagerBytes;
  } catch (error) {
    if (!(error instanceof CorruptCheckpointError)) throw error;
  }
  return HEADER_BYTES;
}

/**
 * A larger file is read only if its header is good: a sparse file of 2 GiB takes no disk, but
 * reading it takes 2 GiB of memory.
 */
const UNCHECKED_BYTES = 2 ** 24;

function openPageFile(
  directoryFd: number,
  directory: string,
  pageFile: PageFile,
  report: Report,
): OpenContent | null {
  const name = pageFileName(pageFile.id);
  const path = `${directory}/${name}`;
  const fd = openIfExists(directoryFd, name);
  if (fd === undefined) {
    report(corrupt(path, "The page file is missing"));
    return null;
  }
  try {
    const content = describe(fd, path);
    const expectedBytes = pageFile.sizeBytes + TRAILER_BYTES;
    if (content.sizeBytes !== expectedBytes)
      report(corrupt(path, `Expected ${expectedBytes} bytes, got ${content.sizeBytes}`));
    else checkTrailer(readBytes(fd, pageFile.sizeBytes, TRAILER_BYTES, path), pageFile, path);
    return content;
  } catch (error) {
    if (error instanceof CorruptCheckpointError) {
      report(error);
      return { fd, path, sizeBytes: 0 };
    }
    closeFile(fd);
    throw error;
  }
}

/** The id of the directory's present manifest; undefined if it has no readable manifest. */
export function readId(directoryFd: number): bigint | undefined {
  const fd = openIfExists(directoryFd, META);
  if (fd === undefined) return undefined;
  try {
    return fileStatus(fd).isFile ? idOf(readBytes(fd, 0, HEADER_BYTES, META)) : undefined;
  } finally {
    closeFile(fd);
  }
}
