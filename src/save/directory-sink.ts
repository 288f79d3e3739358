/**
 * A checkpoint in a directory. Replacing `meta` by rename is the one instant at which the new
 * checkpoint becomes the directory's:
 *
 *   1. write pages-<id> and meta.<id>.tmp, sync both at once, sync the directory
 *   2. rename meta.<id>.tmp to meta, sync the directory              <- commit
 *   3. remove page files that the new manifest does not name
 *
 * A page file that no manifest names is a leftover of a save that died: the next save removes it.
 */
import { closeFile, closeInBackground, setDirectIo, truncateFile } from "../../ffi/index.ts";
import { META, type OpenCheckpoint, openCheckpoint } from "../checkpoint/directory.ts";
import { refuseForeign } from "../checkpoint/foreign.ts";
import type { PageFile } from "../checkpoint/format.ts";
import { encodeTrailer, hex, pageFileName } from "../checkpoint/page-file.ts";
import {
  closeAll,
  type DirectoryOptions,
  StagingDirectory,
  writeBytes,
} from "../checkpoint/staging.ts";
import { CorruptCheckpointError, NoCheckpointError } from "../errors/errors.ts";
import { endCache } from "../remote/cache-origin.ts";
import { describeFile } from "./file-writer.ts";
import type { Commit, FileDescription, Sink } from "./sink.ts";

const LEFTOVER = /^(pages-[0-9a-f]{16}|meta\.[0-9a-f]{16}\.tmp)$/;

export class DirectorySink implements Sink {
  readonly place: string;
  readonly base: OpenCheckpoint | null;
  private readonly directory: StagingDirectory;
  private pages: { readonly fd: number; readonly name: string } | undefined;
  private temporary: string | undefined;
  private isCommitted = false;
  /** False while page files may be those of a manifest that cannot be read. */
  private readonly knowsPageFiles: boolean;

  /**
   * `path` is absolute.
   * @throws {CheckpointBusyError} if another writer has the directory
   * @throws {SyscallError}
   */
  constructor(path: string, options: DirectoryOptions = {}) {
    this.place = path;
    this.directory = new StagingDirectory(path, options);
    try {
      const base = openBase(this.directory.path);
      this.base = base === "damaged" ? null : base;
      this.knowsPageFiles = base !== "damaged";
    } catch (error) {
      this.directory.close();
      throw error;
    }
  }

  async beginPages(id: bigint, mostBytes: number): Promise<FileDescription> {
    await this.removeLeftovers();
    const name = pageFileName(id);
    const fd = this.directory.create(name);
    this.pages = { fd, name };
    return describeFile(fd, this.directory.pathOf(name), mostBytes);
  }

  /** Removes the remains of earlier saves: temporary manifests, and page files of no manifest. */
  private async removeLeftovers(): Promise<void> {
    if (!this.knowsPageFiles) return;
    const kept = new Set(this.base?.manifest.pageFiles.map(({ id }) => pageFileName(id)));
    for (const name of this.directory.list())
      if (LEFTOVER.test(name) && !kept.has(name)) await this.directory.remove(name);
  }

  async commit({ id, written, makeManifest }: Commit): Promise<void> {
    const { directory } = this;
    const temporary = `${META}.${hex(id)}.tmp`;
    const writeManifest = async () => {
      const { manifest, pageFiles } = await makeManifest();
      this.temporary = temporary;
      await directory.write(temporary, manifest.parts);
      return new Set(pageFiles.map(({ id }) => pageFileName(id)));
    };
    // Both are ended before anything is closed.
    const [named] = await bothOf(writeManifest(), this.syncPages(written));
    endCache(directory);
    await directory.sync();
    directory.rename(temporary, META);
    this.isCommitted = true;
    await directory.sync();
    for (const name of directory.list())
      if (LEFTOVER.test(name) && !named.has(name)) await directory.remove(name);
  }

  async keepBase(): Promise<void> {
    endCache(this.directory);
    // Another program may have written it, and not synced it.
    await this.directory.sync();
  }

  private async syncPages(written: PageFile | null): Promise<void> {
    const { directory, pages } = this;
    if (written === null || pages === undefined) return;
    const { fd, name } = pages;
    setDirectIo(fd, false);
    truncateFile(fd, written.sizeBytes);
    writeBytes(fd, encodeTrailer(written), written.sizeBytes, directory.pathOf(name));
    await directory.syncFile(fd, name);
  }

  async close(): Promise<void> {
    const { directory, pages, temporary } = this;
    const steps: (() => void)[] = [];
    if (pages !== undefined) steps.push(() => closeFile(pages.fd));
    if (!this.isCommitted) {
      if (temporary !== undefined) steps.push(() => directory.removeIfExists(temporary));
      if (pages !== undefined) steps.push(() => directory.removeIfExists(pages.name));
    }
    closeAll([...steps, () => directory.close()]);
    // The last descriptor of a page file that was removed: its blocks are freed in the background.
    for (const { fd } of this.base?.contents ?? []) await closeInBackground(fd);
  }
}

/** Both results, when both have ended. @throws the first one's error, or the second's */
async function bothOf<A, B>(a: Promise<A>, b: Promise<B>): Promise<[A, B]> {
  await Promise.allSettled([a, b]);
  return [await a, await b];
}

/**
 * The checkpoint in a locked directory, which cannot change; null if there is none. @throws
 * {NotCheckpointError}
 */
function openBase(path: string): OpenCheckpoint | "damaged" | null {
  try {
    return openCheckpoint(path);
  } catch (error) {
    if (error instanceof NoCheckpointError) return null;
    if (!(error instanceof CorruptCheckpointError)) throw error;
    refuseForeign(`${path}/${META}`);
    return "damaged";
  }
}
