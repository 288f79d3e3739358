/**
 * Restoring: a validated description of a file becomes a file whose pages are loaded behind the
 * running program. Native checkpoints and gVisor's come here alike; they differ only in who made
 * the description.
 */
import { closeFile, duplicateFile } from "../../ffi/index.ts";
import { readCrcs } from "../checkpoint/columns.ts";
import { closeContents, type OpenCheckpoint } from "../checkpoint/directory.ts";
import type { DecodedFile } from "../checkpoint/format.ts";
import { UnsupportedError } from "../errors/errors.ts";
import { type RestoreImage, restoreRuns } from "./runs.ts";
import { FileCore } from "../core/core.ts";
import { Loader } from "../load/loader.ts";
import { LoadState, LoadWord } from "../load/load-state.ts";
import type { MemoryFile } from "../file/memory-file.ts";
import type { LoadOptions } from "../core/options.ts";
import { createParts } from "../core/parts.ts";
import { Word } from "../control/control.ts";
import { PAGE_SIZE, PAGES_PER_CHUNK } from "../pages/units.ts";

const PROGRESS_INTERVAL_MS = 50;

/** Where page contents are read from. */
export interface PagesSource {
  /** Open for reading; closed by the restore, also if it fails. */
  readonly fd: number;
  /** For error messages. */
  readonly path: string;
  /**
   * Byte offset in the file of each extent's contents; a number: of the first, when each follows
   * the one before.
   */
  readonly extentOffset: Float64Array | number;
  /**
   * CRC-32 of each page with contents, in the order of the extents; null if the format has none.
   */
  readonly checksums: Uint32Array | null;
}

/**
 * Makes the file and begins to load it; what nobody waits for, from `turn` on. Precondition:
 * `image` has been validated.
 *
 * @throws {OutOfMemoryError} {SyscallError} with nothing left open
 */
export function restoreCore(
  image: RestoreImage,
  source: PagesSource,
  options: LoadOptions,
  turn?: Promise<void>,
): FileCore {
  const { fd, path } = source;
  let core: FileCore | undefined;
  let loader: Loader;
  try {
    core = new FileCore(
      createParts({
        ...options,
        expectHugepages: options.expectHugepages ?? image.chunkHuge.includes(1),
      }),
    );
    restoreRuns(core.allocator, core.control, image);
    const state = LoadState.create({
      sizePages: image.chunkHuge.length * PAGES_PER_CHUNK,
      extentStart: image.extents.start,
      extentLength: image.extents.length,
      extentOffset: source.extentOffset,
      checksums: source.checksums,
    });
    loader = new Loader({ control: core.control, state, base: core.mapping.base, fd, path });
    loader.turn = turn;
    core.loader = loader;
    if (state.words[LoadWord.PendingPages]! > 0) loader.choose(options.queue ?? "auto");
  } catch (error) {
    closeFile(fd);
    core?.destroy();
    throw error;
  }
  if (loader.state.words[LoadWord.PendingPages] === 0) closeFile(fd);
  else startLoading(core, loader, options);
  return core;
}

/**
 * Makes all files of a checkpoint and begins to load them, in order. The contents are closed in any
 * case: each file has a descriptor of its own, so that none depends on how long another one lives.
 *
 * @throws as `restoreCore`, with no file left
 */
export function restoreCores(
  checkpoint: OpenCheckpoint,
  optionsOf: (name: string) => LoadOptions,
): FileCore[] {
  const { manifest, contents } = checkpoint;
  const cores: FileCore[] = [];
  try {
    for (const file of manifest.files) {
      // The program's own code, and so before there is a descriptor to close.
      const options = optionsOf(file.name);
      const { extents } = file.pageMap;
      const image = { chunkHuge: file.chunkHuge, runs: file.runs, extents };
      const source = contiguousSource(checkpoint, file);
      cores.push(restoreCore(image, source, options, cores.at(-1)?.loader?.finished));
    }
    return cores;
  } catch (error) {
    for (const core of cores) core.destroy();
    throw error;
  } finally {
    closeContents(contents);
  }
}

/** The file's contents as one sequence of raw pages. @throws {UnsupportedError} if they are not */
function contiguousSource({ contents }: OpenCheckpoint, file: DecodedFile): PagesSource {
  const { extents, frames } = file.pageMap;
  const crcs = readCrcs(contents[0]!.fd, file.crcs, contents[0]!.path);
  const content = contents[frames.content[0] ?? 0]!;
  let first = 0;
  let pages = 0;
  for (let i = 0; i < extents.start.length; i++) {
    const frame = extents.frame[i]!;
    const offset = frames.offset[frame]! + extents.framePage[i]! * PAGE_SIZE;
    if (i === 0) first = offset;
    const isNext = offset === first + pages * PAGE_SIZE && frames.codec[frame] === 0;
    if (!isNext || frames.content[frame] !== frames.content[0])
      throw new UnsupportedError("Cannot load contents that are compressed or in several files");
    pages += extents.length[i]!;
  }
  const { path } = content;
  return { fd: duplicateFile(content.fd), path, extentOffset: first, checksums: crcs };
}

/**
 * What every restore ends with: the file at once, or when all of it is loaded. A file that cannot
 * be is destroyed.
 */
export async function awaitUnlessBackground(
  file: MemoryFile,
  core: FileCore,
  options: LoadOptions,
): Promise<MemoryFile> {
  if (options.background === true) return file;
  try {
    await file.awaitLoad(undefined, { signal: options.signal });
    core.loader?.report();
    return file;
  } catch (error) {
    file.destroy();
    throw error;
  }
}

function startLoading(core: FileCore, loader: Loader, options: LoadOptions): void {
  Atomics.store(core.words, Word.Loading, 1);
  const { signal, onProgress } = options;
  const onAbort = () => loader.abort(signal?.reason);
  signal?.addEventListener("abort", onAbort, { once: true });
  let failure: { readonly error: unknown } | undefined;
  let hasEnded = onProgress === undefined;
  loader.report = () => {
    if (failure !== undefined) throw failure.error;
    if (hasEnded) return;
    const stats = loader.stats();
    hasEnded = !stats.isLoading;
    try {
      onProgress?.(stats);
    } catch (error) {
      failure = { error };
      throw error;
    }
  };
  const reportOrAbort = () => {
    try {
      loader.report();
    } catch (error) {
      loader.abort(error);
    }
  };
  const timer =
    onProgress === undefined ? undefined : setInterval(reportOrAbort, PROGRESS_INTERVAL_MS);
  timer?.unref();
  void loader.start().then(() => {
    clearInterval(timer);
    signal?.removeEventListener("abort", onAbort);
    if (!core.isDetached) reportOrAbort();
  });
}
