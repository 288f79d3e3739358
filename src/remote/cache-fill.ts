/**
 * The local cache of a remote checkpoint: a directory with one checkpoint, as a save would leave
 * it, and a file `origin` with the checkpoint's place.
 *
 * A load fills it: loading threads write what they read (source/cache-writer.ts), and at the end
 * the rest is fetched, such as pages that the program freed before they were loaded. Then the
 * manifest is renamed into place, as in a save. So the directory has the whole checkpoint or none.
 * Page files have the contents that the manifest needs; the rest of them may be holes.
 *
 * The directory is locked while it is filled. A load that finds it locked waits (cache-wait.ts), or
 * loads without it.
 */
import { closeFile, SyscallError, truncateFile } from "../../ffi/index.ts";
import { META } from "../checkpoint/directory.ts";
import type { DecodedManifest } from "../checkpoint/decode.ts";
import { encodeTrailer, hex, pageFileName } from "../checkpoint/page-file.ts";
import { absolutePath, StagingDirectory, writeBytes } from "../checkpoint/staging.ts";
import { CheckpointBusyError } from "../errors/errors.ts";
import { getRange } from "../http/range.ts";
import { PAGE_SIZE } from "../pages/units.ts";
import { type CacheFiles, CacheWriter, createCacheWords } from "../source/cache-writer.ts";
import { encodeOrigin, NEXT_ORIGIN, type Origin, ORIGIN, requireCache } from "./cache-origin.ts";
import { readWhole, type RemoteCheckpoint } from "./open-checkpoint.ts";
import type { RemotePlace } from "./place.ts";

const LEFTOVER = /^(pages-[0-9a-f]{16}|meta\.[0-9a-f]{16}\.tmp|origin\.tmp)$/;
const TEMPORARY = /^cache-[0-9a-f]{16}\.tmp$/;
/** Adjacent missing blocks are fetched together, up to this. */
const FETCH_BYTES = 2 ** 22;

export interface CacheFillOptions {
  readonly directory: string;
  readonly maxBytes: number;
  readonly place: RemotePlace;
  readonly checkpoint: RemoteCheckpoint;
  readonly origin: Origin;
}

export class CacheFill {
  readonly files: CacheFiles;
  private readonly options: CacheFillOptions;
  private readonly directory: StagingDirectory;
  private readonly writer: CacheWriter;

  private constructor(options: CacheFillOptions, directory: StagingDirectory, fds: number[]) {
    this.options = options;
    this.directory = directory;
    const firstBit: number[] = [];
    let bits = 0;
    for (const { identity } of options.checkpoint.contents) {
      firstBit.push(bits);
      bits += Math.ceil(identity.sizeBytes / PAGE_SIZE);
    }
    this.files = { fds, firstBit, words: createCacheWords(bits) };
    this.writer = new CacheWriter(this.files);
  }

  /**
   * "busy" if another load fills the cache. Null if the checkpoint is too large for it, or the disk
   * has no room or the process no descriptors for it, which is a warning.
   * @throws {SyscallError} @throws {NotCheckpointError} if the directory has another checkpoint
   */
  static begin(options: CacheFillOptions): CacheFill | "busy" | null {
    try {
      return CacheFill.beginNow(options);
    } catch (error) {
      if (!(error instanceof SyscallError && LACKS.includes(error.code))) throw error;
      warnOfCache(error);
      return null;
    }
  }

  private static beginNow(options: CacheFillOptions): CacheFill | "busy" | null {
    const { checkpoint, maxBytes } = options;
    const bytes = checkpoint.contents.reduce((sum, { identity }) => sum + identity.sizeBytes, 0);
    if (bytes > maxBytes) return null;
    let directory: StagingDirectory;
    try {
      directory = new StagingDirectory(absolutePath(options.directory));
    } catch (error) {
      if (error instanceof CheckpointBusyError) return "busy";
      throw error;
    }
    // The manifest is written at the end, as a whole.
    const fds = [-1];
    try {
      requireCache(directory);
      // Remains of a process that died.
      for (const name of directory.list()) if (TEMPORARY.test(name)) directory.removeIfExists(name);
      for (const { id } of checkpoint.manifest.pageFiles) {
        fds.push(directory.create(temporaryName(id)));
      }
      return new CacheFill(options, directory, fds);
    } catch (error) {
      for (const fd of fds) if (fd >= 0) closeFile(fd);
      directory.close();
      throw error;
    }
  }

  /** Makes this checkpoint the cache's. Precondition: no thread loads any more. */
  async commit(): Promise<void> {
    const { directory, options } = this;
    const { checkpoint, origin, place } = options;
    const { manifest, contents } = checkpoint;
    try {
      if (this.writer.hasEnded) {
        warnOfCache(new Error(`its files in '${options.directory}' cannot be written`));
        return;
      }
      await place.ready();
      for (const [start, end, content] of this.missing()) await this.fetch(content, start, end);
      await this.completePageFiles(manifest);
      const meta = `${META}.${hex(manifest.id)}.tmp`;
      directory.removeIfExists(meta);
      directory.removeIfExists(NEXT_ORIGIN);
      await directory.write(meta, [await readWhole(place.client, contents[0]!)]);
      await directory.write(NEXT_ORIGIN, [encodeOrigin(origin)]);
      // Without an origin, no start uses the old checkpoint. Then the new one appears.
      directory.removeIfExists(ORIGIN);
      await directory.sync();
      for (const { id } of manifest.pageFiles)
        directory.rename(temporaryName(id), pageFileName(id));
      directory.rename(meta, META);
      directory.rename(NEXT_ORIGIN, ORIGIN);
      await directory.sync();
      const named = new Set(manifest.pageFiles.map(({ id }) => pageFileName(id)));
      for (const name of directory.list())
        if (LEFTOVER.test(name) && !named.has(name)) await directory.remove(name);
    } finally {
      this.abandon();
    }
  }

  private async completePageFiles({ pageFiles }: DecodedManifest): Promise<void> {
    for (const [i, pageFile] of pageFiles.entries()) {
      const fd = this.files.fds[i + 1]!;
      const path = this.directory.pathOf(temporaryName(pageFile.id));
      truncateFile(fd, pageFile.sizeBytes);
      writeBytes(fd, encodeTrailer(pageFile), pageFile.sizeBytes, path);
      await this.directory.syncFile(fd, temporaryName(pageFile.id));
    }
  }

  /** Ranges [start, end) of contents that live frames need and no thread has read. */
  private *missing(): Generator<[start: number, end: number, content: number]> {
    for (const { pageMap } of this.options.checkpoint.manifest.files) {
      const { content, offset, storedBytes } = pageMap.frames;
      for (let row = 0; row < content.length; row++) {
        const start = offset[row]!;
        const end = start + storedBytes[row]!;
        if (!this.writer.has(content[row]!, start, end)) yield [start, end, content[row]!];
      }
    }
  }

  private async fetch(content: number, start: number, end: number): Promise<void> {
    const { checkpoint, place } = this.options;
    for (let at = start; at < end; at += FETCH_BYTES) {
      const bytes = new Uint8Array(Math.min(FETCH_BYTES, end - at));
      const range = { ...checkpoint.contents[content]!, start: at, end: at + bytes.byteLength };
      await getRange(place.client, range, (piece, offset) => bytes.set(piece, offset));
      writeBytes(this.files.fds[content]!, bytes, at, this.directory.path);
    }
  }

  /** Ends the fill. The next one removes files that were not committed. Idempotent. */
  abandon(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.writer.end();
    for (const fd of this.files.fds) if (fd >= 0) closeFile(fd);
    for (const { id } of this.options.checkpoint.manifest.pageFiles)
      this.directory.removeIfExists(temporaryName(id));
    this.directory.close();
  }

  private isClosed = false;
}

/** Errors of a process or disk that is full or read-only: the load works without a cache. */
const LACKS: readonly string[] = ["ENOSPC", "EDQUOT", "EMFILE", "ENFILE", "EROFS"];

/** The load succeeds. Only the next start is slower. */
export function warnOfCache(error: unknown): void {
  process.emitWarning(`The cache of a checkpoint was not written: ${(error as Error).message}`, {
    code: "PGALLOC_CACHE_NOT_WRITTEN",
  });
}

/** No load, and no leftover of a save, has this name. */
function temporaryName(id: bigint): string {
  return `cache-${hex(id)}.tmp`;
}
