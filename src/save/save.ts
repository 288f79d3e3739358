/**
 * Saving: the allocators' runs at one instant, then find, write and commit, all of it in threads. The program goes on; what
 * it writes to the memory meanwhile may or may not be in the checkpoint, page by page.
 */
import type { FileCore } from "../core/core.ts";
import { Word } from "../control/control.ts";
import { PAGE_SIZE } from "../pages/units.ts";
import { collectRuns, usedRuns } from "./collect.ts";
import { CheckpointWriter } from "../checkpoint/directory.ts";
import { encodeMeta, type FileImage } from "../checkpoint/format.ts";
import { closing } from "../checkpoint/staging.ts";
import { type SaveProgress, writeUsedPages } from "./write-pages.ts";

export interface SaveOptions {
  /** Stored beside the pages and given back as `userData`: the program's roots, its index. */
  readonly userData?: Uint8Array | undefined;
  /**
   * Accepted for gVisor's sake. Zero pages are never stored here, committed or not: finding them costs no I/O, and they
   * are told from others at memory speed.
   */
  readonly excludeCommittedZeroPages?: boolean | undefined;
  /** Ends the save; the directory is as it was. */
  readonly signal?: AbortSignal | undefined;
  /** Called now and then with bytes of page contents. What it throws ends the save. */
  readonly onProgress?: ((progress: SaveProgress) => void) | undefined;
}

/** What a save did; sizes in bytes, of all its files together. */
export interface SaveReport {
  readonly directory: string;
  readonly usedBytes: number;
  /** Page contents written. */
  readonly pagesBytes: number;
  /** Committed memory that held only zeros, and was not written. */
  readonly zeroBytes: number;
  readonly metaBytes: number;
  readonly extents: number;
  readonly durationMs: number;
}

export interface SaveFile {
  /** Unique in the checkpoint. */
  readonly name: string;
  readonly core: FileCore;
  readonly userData: Uint8Array | null;
}

/** Saves the files as one checkpoint. Each is kept in memory until it is done with, even if it is destroyed meanwhile. */
export function saveFiles(
  files: readonly SaveFile[],
  directory: string,
  options: SaveOptions,
): Promise<SaveReport> {
  const work = saveWhenLoaded(files, directory, options);
  for (const { core } of files) core.hold(work);
  return work;
}

async function saveWhenLoaded(
  files: readonly SaveFile[],
  directory: string,
  options: SaveOptions,
): Promise<SaveReport> {
  for (const { core } of files) {
    if (core.mayMissPages)
      await core.loader!.awaitLoad(0, core.words[Word.SizePages]!, false, options.signal);
    await core.releaser.released();
  }
  for (const { core } of files) core.requireLive("saveTo()");
  return await saveCheckpoint(files, directory, options);
}

async function saveCheckpoint(
  files: readonly SaveFile[],
  directory: string,
  options: SaveOptions,
): Promise<SaveReport> {
  const startedAt = performance.now();
  const writer = new CheckpointWriter(directory);
  return await closing(writer, async () => {
    const collected = files.map(({ core }) => collectRuns(core.allocator));
    const sources = files.map(({ core }, i) => {
      const { fd, base } = core.mapping;
      return { control: core.words.buffer, fd, base, ...usedRuns(collected[i]!.runs) };
    });
    const written = await writeUsedPages(
      sources,
      { fd: writer.pagesFd, path: writer.pagesPath },
      options,
    );
    const { checksums, extents, zeroPages } = written;
    const images = files.map(({ name, userData }, i): FileImage => {
      const { chunkHuge, runs } = collected[i]!;
      return { name, chunkHuge, runs, extents: extents[i]!, userData };
    });
    const userData = options.userData ?? null;
    const meta = encodeMeta({
      id: writer.id,
      pageSize: PAGE_SIZE,
      files: images,
      checksums,
      userData,
    });
    options.signal?.throwIfAborted();
    await writer.commit(meta);
    return {
      directory,
      usedBytes: collected.reduce((sum, { usedPages }) => sum + usedPages, 0) * PAGE_SIZE,
      pagesBytes: checksums.length * PAGE_SIZE,
      zeroBytes: zeroPages * PAGE_SIZE,
      metaBytes: meta.byteLength,
      extents: extents.reduce((sum, { start }) => sum + start.length, 0),
      durationMs: performance.now() - startedAt,
    };
  });
}
