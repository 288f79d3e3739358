/**
 * Saving: the allocator's runs at one instant, then scan, write and commit, all of it in threads. The program goes on; what
 * it writes to the memory meanwhile may or may not be in the checkpoint, page by page.
 */
import type { Allocator } from "../allocator/allocator.ts";
import { PAGE_SIZE } from "../units.ts";
import { collectRuns, usedRuns } from "./collect.ts";
import { CheckpointWriter } from "./directory.ts";
import { type CheckpointImage, encodeMeta } from "./format.ts";
import { writeUsedPages } from "./write-pages.ts";

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
  readonly onProgress?: ((progress: { readonly writtenBytes: number; readonly totalBytes: number }) => void) | undefined;
}

/** What a save did; sizes in bytes. */
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

export interface SaveSource {
  readonly allocator: Allocator;
  readonly fd: number;
  readonly base: number;
}

export async function saveCheckpoint(source: SaveSource, directory: string, options: SaveOptions): Promise<SaveReport> {
  const startedAt = performance.now();
  const writer = new CheckpointWriter(directory);
  try {
    const { chunkHuge, runs, usedPages } = collectRuns(source.allocator);
    const { fd, base } = source;
    const written = await writeUsedPages(
      [{ control: source.allocator.words.buffer, fd, base, ...usedRuns(runs) }],
      { fd: writer.pagesFd, path: writer.pagesPath },
      options,
    );
    const { checksums } = written;
    const extents = written.extents[0]!;
    const image: CheckpointImage = {
      chunkHuge,
      runs,
      id: writer.id,
      pageSize: PAGE_SIZE,
      extents,
      checksums,
      userData: options.userData ?? null,
    };
    const meta = encodeMeta(image);
    options.signal?.throwIfAborted();
    await writer.commit(meta);
    return {
      directory,
      usedBytes: usedPages * PAGE_SIZE,
      pagesBytes: checksums.length * PAGE_SIZE,
      zeroBytes: written.zeroPages * PAGE_SIZE,
      metaBytes: meta.byteLength,
      extents: extents.start.length,
      durationMs: performance.now() - startedAt,
    };
  } finally {
    writer.close();
  }
}
