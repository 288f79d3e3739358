/**
 * Restoring: turns validated descriptions into files whose pages load while the program runs.
 * Native checkpoints and gVisor's both end here; only their descriptions are made differently.
 *
 * The files of a checkpoint share its page source and one group of loads, so the number of threads
 * and descriptors does not depend on the number of files. Files load one after another. Pages of
 * any file that a program waits for come first.
 */
import { CodecId as Codecs } from "../codec/codec.ts";
import { openCodec } from "../codec/open-codec.ts";
import { Word } from "../control/control.ts";
import { FileCore } from "../core/core.ts";
import type { LoadOptions, MemoryFileOptions } from "../core/options.ts";
import { createParts } from "../core/parts.ts";
import type { PageMap } from "../checkpoint/page-map.ts";
import { adviseFirst, listFirstPages } from "../load/first-pages.ts";
import { createGroup } from "../load/group.ts";
import { QUEUES } from "../load/load-stats.ts";
import { LoadState } from "../load/load-state.ts";
import { type Checksums, LoadWord } from "../load/load-tables.ts";
import { Loader } from "../load/loader.ts";
import { createUses } from "../load/use-record.ts";
import { PAGE_SIZE } from "../pages/units.ts";
import type { PageSource } from "../source/description.ts";
import { type PlannedReads, URING_BYTES_MIN } from "../source/file-source.ts";
import { chooseReads, describeSource, holdSource, releaseSource } from "../source/describe.ts";
import { canBlock } from "../source/open.ts";
import type { PageRun } from "./changed-pages.ts";
import { mapPages } from "./map-pages.ts";
import { createOverlay } from "../memory/overlay.ts";
import { Progress } from "./progress.ts";
import { type RestoreImage, restoreRuns } from "./runs.ts";

/** The blocks in which uses are recorded, and those of earlier starts, which are read first. */
export interface Recording {
  readonly blockPages: number;
  readonly known: readonly number[];
}

/** A validated file to restore. */
export interface RestoreFile {
  readonly image: RestoreImage;
  readonly map: PageMap;
  /** CRC-32 of each page by rank, or their place in the manifest; null if there are none. */
  readonly checksums: Checksums | null;
  readonly options: MemoryFileOptions;
  /** Pages that this process has checked before. Those that are mapped are loaded at once. */
  readonly checked?: readonly PageRun[] | undefined;
  /** How the program's uses are recorded. Default: they are not. */
  readonly recording?: Recording | undefined;
}

/** Options for all files of a restore. */
export interface RestoreOptions
  extends Pick<LoadOptions, "background" | "signal" | "queue" | "mapped" | "verify"> {
  /** Calls the program's `onProgress`, if it has one. */
  readonly report?: ((loaders: readonly Loader[]) => void) | undefined;
  /** Called when no thread reads any more. `isLoaded`: all is loaded. It does not reject. */
  readonly onEnd?: ((isLoaded: boolean) => Promise<void>) | undefined;
  /** True if a wait for the whole file includes `onEnd`. */
  readonly awaitsEnd?: boolean | undefined;
}

/** Files whose loads have begun. */
export interface Restored {
  readonly cores: readonly FileCore[];
  /**
   * The end of every restore: resolves at once for a load in the background, else when all is
   * loaded. Files that cannot be loaded are destroyed.
   */
  finish(): Promise<void>;
}

/**
 * Makes the files and begins to load them in order. Takes one hold of the source, also if it fails.
 *
 * @throws {OutOfMemoryError} {SyscallError} {CodecUnavailableError} with no file left
 */
export function restoreFiles(
  given: PageSource,
  files: readonly RestoreFile[],
  options: RestoreOptions,
): Restored {
  const cores: FileCore[] = [];
  let source = given;
  try {
    requireCodecs(files);
    const { queue = "auto", mapped = false } = options;
    // Mapped contents come through the page cache.
    source = chooseSource(given, files, mapped && queue !== "inline" ? "workers" : queue);
    const group = createGroup(files.length);
    const isInline = options.queue === "inline" && canBlock(source);
    files.forEach((file, index) => {
      const state = createState(file, {
        source,
        group,
        index,
        isInline,
        mapped,
        files: files.length,
      });
      cores.push(restoreFile(file, state, options.verify ?? true));
    });
  } catch (error) {
    for (const core of cores) core.destroy();
    throw error;
  } finally {
    releaseSource(source);
  }
  return startLoading(cores, options);
}

/** @throws {CodecUnavailableError} before anything is loaded */
function requireCodecs(files: readonly RestoreFile[]): void {
  for (const id of [Codecs.Lz4, Codecs.Zstd])
    if (files.some(({ map }) => map.frames.codec.includes(id))) openCodec(id);
}

function chooseSource(
  source: PageSource,
  files: readonly RestoreFile[],
  queue: NonNullable<RestoreOptions["queue"]>,
): PageSource {
  if (queue === "workers" || queue === "inline") return source;
  return chooseReads(source, queue, () => planReads(files));
}

function planReads(files: readonly RestoreFile[]): PlannedReads {
  let bytes = 0;
  let isAligned = true;
  for (const { map } of files) {
    // By index: in a fresh process an iterator or a callback costs more than the work.
    const { length } = map.extents;
    for (let i = 0; i < length.length && bytes < URING_BYTES_MIN; i++)
      bytes += length[i]! * PAGE_SIZE;
    const { codec, offset } = map.frames;
    for (let i = 0; i < codec.length; i++)
      if (codec[i] === Codecs.Raw && offset[i]! % PAGE_SIZE !== 0) isAligned = false;
  }
  return { bytes, isAligned };
}

interface LoadPlace {
  readonly source: PageSource;
  readonly group: SharedArrayBuffer;
  readonly index: number;
  readonly isInline: boolean;
  readonly mapped: boolean;
  /** How many files the restore has. */
  readonly files: number;
}

function createState(file: RestoreFile, place: LoadPlace): LoadState {
  const { map, recording } = file;
  const { source, group, index, isInline, mapped, files } = place;
  const { start, length } = map.extents;
  const last = start.length - 1;
  const pages = last < 0 ? 0 : start[last]! + length[last]!;
  const overlay = mapped ? createOverlay(pages, files) : null;
  const shared = { source, overlay, group, index };
  const state = LoadState.create({ ...shared, ...recordingOf(recording, pages), map });
  const used = isInline ? "inline" : describeSource(source).isUring ? "uring" : "workers";
  const isEmpty = state.words[LoadWord.PendingPages] === 0;
  state.words[LoadWord.Queue] = QUEUES.indexOf(isEmpty ? null : used);
  return state;
}

function recordingOf(recording: Recording | undefined, pages: number) {
  if (recording === undefined) return {};
  const { blockPages, known } = recording;
  const first = known.length === 0 ? null : listFirstPages(known, blockPages);
  return { first, uses: createUses(pages, blockPages, known) };
}

function restoreFile(
  { image, options, checksums, checked = [] }: RestoreFile,
  state: LoadState,
  verify: boolean,
): FileCore {
  const expectHugepages = options.expectHugepages ?? image.chunkHuge.includes(1);
  const parts = createParts({ ...options, expectHugepages }, image.chunkHuge.length);
  const { control } = parts;
  holdSource(state.handle.source);
  const core = new FileCore(parts, new Loader({ control, state, base: parts.mapping.base }));
  try {
    restoreRuns(core.allocator, control, image);
    const { overlay } = core.mapping;
    if (overlay !== null) mapPages(state, overlay, verify, checked);
    if (checksums !== null && state.isLoading) state.useChecksums(checksums);
  } catch (error) {
    core.destroy();
    throw error;
  }
  adviseFirst(state);
  if (state.isLoading) Atomics.store(core.words, Word.Loading, 1);
  return core;
}

function startLoading(cores: readonly FileCore[], options: RestoreOptions): Restored {
  const { signal, report } = options;
  const loaders = cores.map(({ loader }) => loader!);
  const abortAll = (reason: unknown) => {
    for (const loader of loaders) if (loader.isLoading) loader.abort(reason);
  };
  const onAbort = () => abortAll(signal?.reason);
  signal?.addEventListener("abort", onAbort, { once: true });
  const live = () => cores.flatMap((core) => (core.isDetached ? [] : [core.loader!]));
  const progress =
    report === undefined
      ? undefined
      : new Progress({
          report: () => report(live()),
          isLoading: () => live().some((loader) => loader.isLoading),
          hasFiles: () => cores.some((core) => !core.isDetached),
          abort: abortAll,
        });
  const ended = Loader.run(loaders).then(async () => {
    signal?.removeEventListener("abort", onAbort);
    progress?.tell();
    await options.onEnd?.(loaders.every(({ state }) => state.isComplete));
  });
  if (options.awaitsEnd === true) for (const core of cores) core.loadEnd = ended;
  return { cores, finish: () => finish(cores, progress, options) };
}

async function finish(
  cores: readonly FileCore[],
  progress: Progress | undefined,
  { background, signal }: RestoreOptions,
): Promise<void> {
  if (background === true) return;
  try {
    for (const core of cores) {
      core.requireStillLive("awaitLoad()");
      if (!core.mayMissPages) continue;
      await core.loader!.awaitLoad(0, core.words[Word.SizePages]!, false, signal);
    }
    await cores[0]?.loadEnd;
    progress?.tell();
    progress?.throwIfFailed();
    signal?.throwIfAborted();
  } catch (error) {
    for (const core of cores) core.destroy();
    throw error;
  }
}
