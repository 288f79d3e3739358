/**
 * A gVisor checkpoint's directory: finds its two files, and replaces them together.
 *
 * gVisor opens `pages_meta.img` and `pages.img`, and neither names the other. So no reader may ever
 * see a mix of two exports, least of all a gVisor that does not know this library:
 *
 *   1. write pages.img.<id>.tmp and pages_meta.img.<id>.tmp, fsync both
 *   2. rename pages.img.<id>.tmp to pages.img.<id>, fsync the directory
 *   3. rename pages_meta.img.<id>.tmp to pages_meta.img.<id>, fsync the directory    <- commit
 *   4. remove pages_meta.img, fsync the directory
 *   5. rename pages.img.<id> to pages.img, fsync the directory
 *   6. rename pages_meta.img.<id> to pages_meta.img, fsync the directory
 *
 * gVisor sees the old export before step 4, nothing until step 6, then the new one. This library
 * sees the old one until step 3 and the new one afterwards, because it looks for
 * pages_meta.img.<id> first. An export that fails before step 4 leaves the old one. An export that
 * finds another one stopped after step 3 finishes it.
 */
import { lstatSync } from "node:fs";
import {
  closeFile,
  fileStatus,
  listDirectory,
  O_DIRECTORY,
  O_RDONLY,
  openFile,
  quote,
  setDirectIo,
  truncateFile,
} from "../../ffi/index.ts";
import {
  absolutePath,
  closeAll,
  type DirectoryOptions,
  openIfExists,
  readBytes,
  StagingDirectory,
} from "../checkpoint/staging.ts";
import { NoCheckpointError, NotCheckpointError, SyscallError } from "../errors/errors.ts";
import { hasScheme } from "../remote/place.ts";
import { describeFile } from "../save/file-writer.ts";
import type { FileDescription } from "../save/sink.ts";
import { METADATA_BYTES_MAX } from "./metadata.ts";

const META = "pages_meta.img";
const PAGES = "pages.img";
const COMMITTED_META = /^pages_meta\.img\.([0-9a-f]{16})$/;
const UNFINISHED = /^pages(_meta)?\.img\.[0-9a-f]{16}(\.tmp)?$/;
const OPEN_ATTEMPTS = 16;

/**
 * The absolute path of a directory of this machine. @throws {TypeError} for a URL, among others
 */
export function localDirectory(directory: string): string {
  if (typeof directory === "string" && hasScheme(directory))
    throw new TypeError(
      `Expected a directory: gVisor's format has no remote places, got ${quote(directory)}`,
    );
  return absolutePath(directory);
}

/** The names in a NoCheckpointError. */
const KIND = { kind: "gVisor checkpoint", file: META };

export interface OpenedFile {
  /** Open for reading. The caller closes it. */
  readonly fd: number;
  readonly path: string;
  readonly sizeBytes: number;
}

export interface OpenedExport {
  readonly metadata: OpenedFile;
  /** null in the form without a pages file. */
  readonly pages: OpenedFile | null;
}

/**
 * @throws {NoCheckpointError} if the directory has no such checkpoint, or does not exist
 * @throws {SyscallError} if the directory cannot be read
 */
export function openExport(directory: string): OpenedExport {
  const directoryFd = openDirectory(directory);
  try {
    for (let attempt = 1; ; attempt++) {
      const found = openOnce(directoryFd, directory);
      if (found !== undefined) return found;
      if (attempt === OPEN_ATTEMPTS) {
        throw new NoCheckpointError(directory, undefined, KIND);
      }
    }
  } finally {
    closeFile(directoryFd);
  }
}

function openDirectory(directory: string): number {
  try {
    return openFile(directory, O_RDONLY | O_DIRECTORY);
  } catch (error) {
    if (error instanceof SyscallError && error.code === "ENOENT")
      throw new NoCheckpointError(directory, error, KIND);
    throw error;
  }
}

/** Undefined if there is no metadata, or an export was committed meanwhile. */
function openOnce(directoryFd: number, directory: string): OpenedExport | undefined {
  const id = committedId(listDirectory(directoryFd));
  const metaName = id === undefined ? META : `${META}.${id}`;
  const metaFd = openIfExists(directoryFd, metaName);
  if (metaFd === undefined) return undefined;
  let pagesFd: number | undefined;
  try {
    pagesFd =
      (id === undefined ? undefined : openIfExists(directoryFd, `${PAGES}.${id}`)) ??
      openIfExists(directoryFd, PAGES);
    if (isCurrent(metaFd, directoryFd)) {
      const opened = {
        metadata: describe(metaFd, `${directory}/${metaName}`),
        pages: pagesFd === undefined ? null : describe(pagesFd, `${directory}/${PAGES}`),
      };
      pagesFd = undefined;
      return opened;
    }
  } catch (error) {
    closeFile(metaFd);
    throw error;
  } finally {
    if (pagesFd !== undefined) closeFile(pagesFd);
  }
  closeFile(metaFd);
  return undefined;
}

/**
 * True if a reader would now open the file behind `fd`. An open file's inode is not reused, so no
 * other export has it.
 */
function isCurrent(fd: number, directoryFd: number): boolean {
  const id = committedId(listDirectory(directoryFd));
  const now = openIfExists(directoryFd, id === undefined ? META : `${META}.${id}`);
  if (now === undefined) return false;
  try {
    const [a, b] = [fileStatus(fd), fileStatus(now)];
    return a.inode === b.inode && a.device === b.device;
  } finally {
    closeFile(now);
  }
}

function describe(fd: number, path: string): OpenedFile {
  return { fd, path, sizeBytes: fileStatus(fd).sizeBytes };
}

/** The id of an export that was committed, but not renamed to gVisor's names. */
function committedId(names: readonly string[]): string | undefined {
  for (const name of names) {
    const id = COMMITTED_META.exec(name)?.[1];
    if (id !== undefined) return id;
  }
  return undefined;
}

/**
 * Finishes an export that died after step 3 (steps 4 to 6, in an order that a power failure keeps),
 * and removes temporary files.
 */
async function finishEarlierExports(directory: StagingDirectory): Promise<void> {
  const names = directory.list();
  const id = committedId(names);
  if (id !== undefined) {
    directory.removeIfExists(META);
    await directory.sync();
    if (names.includes(`${PAGES}.${id}`)) directory.rename(`${PAGES}.${id}`, PAGES);
    await directory.sync();
    directory.rename(`${META}.${id}`, META);
  }
  for (const name of directory.list()) if (UNFINISHED.test(name)) directory.removeIfExists(name);
}

/**
 * The name of gVisor at which there is something else: metadata that is not empty, and has no
 * length at its beginning, or pages without metadata, which gVisor may be about to write. An export
 * replaces a symbolic link; its target stays.
 */
function foreignName(directory: StagingDirectory): string | undefined {
  const meta = lstatSync(directory.pathOf(META), { throwIfNoEntry: false });
  if (meta === undefined) {
    const pages = lstatSync(directory.pathOf(PAGES), { throwIfNoEntry: false });
    const isEmpty = pages === undefined || pages.isSymbolicLink() || pages.size === 0;
    return isEmpty ? undefined : PAGES;
  }
  return !meta.isSymbolicLink() && isForeignMeta(directory) ? META : undefined;
}

function isForeignMeta(directory: StagingDirectory): boolean {
  const fd = openIfExists(directory.fd, META);
  if (fd === undefined) return false;
  try {
    const { isFile, sizeBytes } = fileStatus(fd);
    if (!isFile) return true;
    if (sizeBytes === 0) return false;
    const length = readBytes(fd, 0, 8, directory.pathOf(META));
    return length.length < 8 || new BigUint64Array(length.buffer)[0]! > METADATA_BYTES_MAX;
  } finally {
    closeFile(fd);
  }
}

/** An export into a directory, from the lock to the release of it. */
export class ExportWriter {
  readonly pagesFd: number;
  private readonly directory: StagingDirectory;
  private readonly id = crypto
    .getRandomValues(new BigUint64Array(1))[0]!
    .toString(16)
    .padStart(16, "0");
  private replacing = false;

  private constructor(directory: StagingDirectory) {
    this.directory = directory;
    this.pagesFd = directory.create(this.pagesTemporary);
  }

  /**
   * @throws {CheckpointBusyError} if another save has the directory @throws {SyscallError}
   * @throws {NotCheckpointError} if it has a file of another origin at a name of gVisor
   */
  static async open(path: string, options: DirectoryOptions = {}): Promise<ExportWriter> {
    const directory = new StagingDirectory(path, { mode: options.mode });
    try {
      await finishEarlierExports(directory);
      const foreign = foreignName(directory);
      if (foreign !== undefined)
        throw new NotCheckpointError(
          directory.pathOf(foreign),
          "it is not empty, and not of a gVisor checkpoint",
        );
      return new ExportWriter(directory);
    } catch (error) {
      directory.close();
      throw error;
    }
  }

  private get pagesTemporary(): string {
    return `${PAGES}.${this.id}.tmp`;
  }

  private get metaTemporary(): string {
    return `${META}.${this.id}.tmp`;
  }

  /** The file that threads write the pages to. `mostBytes`: the most that it may need. */
  describe(mostBytes: number): FileDescription {
    const path = this.directory.pathOf(this.pagesTemporary);
    return describeFile(this.pagesFd, path, mostBytes);
  }

  /** Commits the export. Precondition: its pages, of `pagesBytes` bytes, are written. */
  async commit(metadata: Uint8Array, pagesBytes: number): Promise<void> {
    const { directory, id } = this;
    setDirectIo(this.pagesFd, false);
    truncateFile(this.pagesFd, pagesBytes);
    await directory.syncFile(this.pagesFd, this.pagesTemporary);
    await directory.write(this.metaTemporary, [metadata]);
    directory.rename(this.pagesTemporary, `${PAGES}.${id}`);
    await directory.sync();
    directory.rename(this.metaTemporary, `${META}.${id}`);
    await directory.sync();
    directory.removeIfExists(META);
    this.replacing = true;
    await directory.sync();
    await directory.replace(`${PAGES}.${id}`, PAGES);
    await directory.sync();
    directory.rename(`${META}.${id}`, META);
    await directory.sync();
  }

  /**
   * Ends the export. If it did not reach step 4, its files are removed, and the directory is
   * unchanged.
   */
  close(): void {
    const { directory, id } = this;
    // The metadata first: without it, no reader looks for the pages.
    const names = this.replacing
      ? []
      : [`${META}.${id}`, `${PAGES}.${id}`, this.metaTemporary, this.pagesTemporary];
    const removals = names.map((name) => () => directory.removeIfExists(name));
    closeAll([() => closeFile(this.pagesFd), ...removals, () => directory.close()]);
  }
}
