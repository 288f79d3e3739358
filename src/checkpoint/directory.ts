/**
 * A checkpoint's directory: how a complete checkpoint appears in it, and is found.
 *
 * The directory holds `meta` and `pages`. `meta` names its checkpoint's id, and replacing it by rename is the one instant at
 * which the new checkpoint becomes the checkpoint:
 *
 *   1. write pages.<id>.tmp and meta.<id>.tmp, fsync both
 *   2. rename pages.<id>.tmp to pages.<id>, fsync the directory
 *   3. rename meta.<id>.tmp to meta, fsync the directory              <- commit
 *   4. rename pages.<id> to pages, fsync the directory
 *
 * Up to 3 the directory's checkpoint is the old one (old meta, and `pages`, which nobody touched). From 3 on it is the new
 * one: whoever reads looks for pages.<id> first, and `pages` after 4. A save that finds one stopped between 3 and 4
 * finishes it.
 *
 * A load follows symbolic links, to the directory and to the files in it: stores and volumes are made of them, and who may write
 * links here may write checkpoints as well. A save never writes through a link in place of its files; it replaces it.
 */
import { closeFile, fileStatus, O_DIRECTORY, O_RDONLY, openFile } from "../../ffi/index.ts";
import type { CorruptCheckpointError } from "../errors/errors.ts";
import { PAGE_SIZE } from "../pages/units.ts";
import {
  checkHeader,
  type DecodedCheckpoint,
  type ExaminedMeta,
  examineMeta,
  type Report,
} from "./decode.ts";
import { corrupt, HEADER_BYTES } from "./format.ts";
import { openIfExists, readBytes, readInto, StagingDirectory } from "./staging.ts";

const META = "meta";
const PAGES = "pages";
/** Metadata larger than this is not read: 2 GiB describe about 2 TiB of memory. */
const MAX_META_BYTES = 2 ** 31;
/** Of larger ones the header is read first. */
const UNCHECKED_META_BYTES = 2 ** 24;
const OPEN_ATTEMPTS = 16;

/** A checkpoint that has been found whole; `pagesFd` is the caller's to close. */
export interface OpenCheckpoint {
  readonly image: DecodedCheckpoint;
  readonly pagesFd: number;
  readonly pagesPath: string;
}

/** What there is of a checkpoint, whole or not. */
export interface ExaminedCheckpoint extends ExaminedMeta {
  /** All that is wrong with the metadata and with the pages file's size. */
  readonly problems: readonly CorruptCheckpointError[];
  /** Open for reading, the caller's to close; null if it is missing. */
  readonly pagesFd: number | null;
  readonly pagesPath: string;
}

/** @throws {SyscallError} if the directory cannot be read @throws {CorruptCheckpointError} if it is no checkpoint */
export function openCheckpoint(directory: string): OpenCheckpoint {
  const { image, pagesFd, pagesPath } = open(directory, (problem) => {
    throw problem;
  });
  return { image: image!, pagesFd: pagesFd!, pagesPath };
}

/** As `openCheckpoint`, but goes on behind what is wrong. @throws {CorruptCheckpointError} if there is no metadata at all */
export function examineCheckpoint(directory: string): ExaminedCheckpoint {
  return open(directory, () => {});
}

function open(directory: string, report: Report): ExaminedCheckpoint {
  const directoryFd = openFile(directory, O_RDONLY | O_DIRECTORY);
  try {
    for (let attempt = 0; ; attempt++) {
      const found = openOnce(directoryFd, directory, attempt < OPEN_ATTEMPTS, report);
      if (found !== undefined) return found;
    }
  } finally {
    closeFile(directoryFd);
  }
}

/** Undefined if a save has committed in between, so that `pages` may belong to its `meta`, and that `mayRetry`. */
function openOnce(
  directoryFd: number,
  directory: string,
  mayRetry: boolean,
  report: Report,
): ExaminedCheckpoint | undefined {
  const problems: CorruptCheckpointError[] = [];
  const tell: Report = (problem) => {
    problems.push(problem);
    report(problem);
  };
  const meta = examineMeta(readMeta(directoryFd, directory), `${directory}/${META}`, tell);
  const pagesPath = `${directory}/${PAGES}`;
  let pagesFd =
    meta.id === null ? undefined : openIfExists(directoryFd, `${PAGES}.${hex(meta.id)}`);
  pagesFd ??= openIfExists(directoryFd, PAGES);
  try {
    if ((readId(directoryFd) ?? null) !== meta.id && mayRetry) return undefined;
    if (pagesFd === undefined) tell(corrupt(pagesPath, "The pages file is missing"));
    else if (meta.checksums !== null)
      checkPagesSize(pagesFd, meta.checksums.length * PAGE_SIZE, pagesPath, tell);
    const opened = { ...meta, problems, pagesFd: pagesFd ?? null, pagesPath };
    pagesFd = undefined;
    return opened;
  } finally {
    if (pagesFd !== undefined) closeFile(pagesFd);
  }
}

function checkPagesSize(fd: number, expectedBytes: number, path: string, report: Report): void {
  const { sizeBytes } = fileStatus(fd);
  if (sizeBytes !== expectedBytes)
    report(corrupt(path, `Expected ${expectedBytes} bytes, got ${sizeBytes}`));
}

function readMeta(directoryFd: number, directory: string): Uint8Array {
  const path = `${directory}/${META}`;
  const fd = openIfExists(directoryFd, META);
  if (fd === undefined)
    throw corrupt(path, `There is no checkpoint in '${directory}': it has no file ${META}`);
  try {
    const { sizeBytes } = fileStatus(fd);
    if (sizeBytes < HEADER_BYTES || sizeBytes > MAX_META_BYTES) {
      throw corrupt(path, `Expected ${HEADER_BYTES} to ${MAX_META_BYTES} bytes, got ${sizeBytes}`);
    }
    // A sparse file of 2 GiB takes no disk, but as much memory.
    if (sizeBytes > UNCHECKED_META_BYTES)
      checkHeader(readBytes(fd, 0, HEADER_BYTES, path), sizeBytes, path);
    // Shared, so that loading threads use its columns where they are.
    return readInto(new Uint8Array(new SharedArrayBuffer(sizeBytes)), fd, 0, path);
  } finally {
    closeFile(fd);
  }
}

/** The id that the directory's `meta` names now, or undefined if there is none to read. */
function readId(directoryFd: number): bigint | undefined {
  const fd = openIfExists(directoryFd, META);
  if (fd === undefined) return undefined;
  try {
    const header = readBytes(fd, 0, HEADER_BYTES, META);
    return header.byteLength < HEADER_BYTES
      ? undefined
      : new DataView(header.buffer).getBigUint64(16, true);
  } finally {
    closeFile(fd);
  }
}

function hex(id: bigint): string {
  return id.toString(16).padStart(16, "0");
}

/** A save into a directory, from the lock to the commit. */
export class CheckpointWriter {
  readonly pagesFd: number;
  readonly id: bigint;
  private readonly directory: StagingDirectory;
  private readonly names: {
    readonly pagesTemporary: string;
    readonly pages: string;
    readonly metaTemporary: string;
  };

  /** @throws {CheckpointBusyError} if another save has the directory @throws {SyscallError} */
  constructor(path: string) {
    this.directory = new StagingDirectory(path);
    this.id = crypto.getRandomValues(new BigUint64Array(1))[0]!;
    const pages = `${PAGES}.${hex(this.id)}`;
    this.names = {
      pages,
      pagesTemporary: `${pages}.tmp`,
      metaTemporary: `${META}.${hex(this.id)}.tmp`,
    };
    try {
      this.finishEarlierSaves();
      this.pagesFd = this.directory.create(this.names.pagesTemporary);
    } catch (error) {
      this.directory.close();
      throw error;
    }
  }

  get pagesPath(): string {
    return this.directory.pathOf(this.names.pagesTemporary);
  }

  /** Step 4 of a save that died before it, and its or others' temporary files away. */
  private finishEarlierSaves(): void {
    const id = readId(this.directory.fd);
    const current = id === undefined ? undefined : `${PAGES}.${hex(id)}`;
    for (const name of this.directory.list()) {
      if (name === current) this.directory.rename(name, PAGES);
      else if (/^(pages|meta)\.[0-9a-f]{16}(\.tmp)?$/.test(name))
        this.directory.removeIfExists(name);
    }
  }

  /** Makes the checkpoint the directory's. The pages must have been written. */
  async commit(meta: Uint8Array): Promise<void> {
    const { directory, names } = this;
    await directory.syncFile(this.pagesFd, names.pagesTemporary);
    await directory.write(names.metaTemporary, meta);
    directory.rename(names.pagesTemporary, names.pages);
    await directory.sync();
    directory.rename(names.metaTemporary, META);
    await directory.sync();
    await directory.replace(names.pages, PAGES);
    await directory.sync();
  }

  /** Ends the save. What is not committed is removed; the directory is as it was. */
  close(): void {
    const { directory, names } = this;
    directory.end(this.pagesFd, [
      () => directory.removeIfExists(names.pagesTemporary),
      () => directory.removeIfExists(names.metaTemporary),
      () => {
        if (readId(directory.fd) !== this.id) directory.removeIfExists(names.pages);
      },
    ]);
  }
}
