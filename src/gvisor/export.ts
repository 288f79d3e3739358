/**
 * Writes a MemoryFile as the two files of a gVisor checkpoint that gVisor's own LoadFrom accepts.
 * The same threads find and write the same pages as in a native save; only the metadata is
 * gVisor's.
 */
import { checkInteger, showValue } from "../../ffi/index.ts";
import type { Allocator } from "../allocator/allocator.ts";
import type { FileCore } from "../core/core.ts";
import { USED } from "../allocator/states.ts";
import { whenAdmitted } from "../save/admission.ts";
import type { SaveOptions, SaveReport } from "../save/options.ts";
import { closing } from "../checkpoint/staging.ts";
import { findFreed, splitAtFreed } from "../save/freed-pages.ts";
import { inSlices } from "../threads/slices.ts";
import type { PageRuns } from "../changes/page-runs.ts";
import { storedExtents } from "../save/build-map.ts";
import { countPages } from "../save/data-finder.ts";
import { createTable, openTable } from "../save/save-table.ts";
import { mostBytesOf, writeUsedPages } from "../save/write-pages.ts";
import type { WriteSource } from "../save/write-task.ts";
import { coreOf, MemoryFile } from "../file/memory-file.ts";
import { checkMode, checkWatchers, type Nullable, readOptions } from "../core/options.ts";
import { entriesOf } from "../file/several.ts";
import { PAGE_SIZE } from "../pages/units.ts";
import { type ComposedImage, type ComposeOptions, checkKinds, imageToMetadata } from "./compose.ts";
import { ExportWriter, localDirectory } from "./directory.ts";
import { CHUNK_PAGES, GVISOR_KIND_MAX, type ImageRuns, RunState } from "./image.ts";
import { encodeMetadata } from "./metadata.ts";
import { checkOwners, encodeOwners, parseResourceId, type ResourceId } from "./owners.ts";
import { requireGvisorPageSize } from "./page-size.ts";
import { MAIN_ID } from "./read-checkpoint.ts";
import { RunBuilder } from "./run-builder.ts";
import { withLength } from "./stream.ts";

/** `userData` has no place in gVisor's format. */
export interface ExportOptions
  extends Pick<SaveOptions, "signal" | "onProgress" | "mode">,
    ComposeOptions {}

/** The result of an export. Sizes in bytes, of all its files together. */
export type ExportReport = Pick<
  SaveReport,
  "directory" | "usedBytes" | "pagesBytes" | "zeroBytes" | "metaBytes" | "extents" | "durationMs"
>;

/**
 * Writes `pages_meta.img` and `pages.img` to a directory, which is created if needed.
 * They contain all references, kinds, groups, huge chunks and sub-released pages; pages that are
 * uncommitted or zero take no room. Waits until everything is loaded. The directory has the
 * previous export until this one is complete; see directory.ts.
 *
 * @throws {RangeError} if a page is of a kind that gVisor does not have (6 to 255) and
 * `foreignKind` is not given
 * @throws {CheckpointBusyError} if another save has the directory
 * @throws {SyscallError} if it cannot be written
 * @throws {UnsupportedError} on a machine whose pages are not 4 KiB
 * @throws the signal's reason
 */
export async function exportTo(
  file: MemoryFile,
  directory: string,
  given?: Nullable<ExportOptions> | null,
): Promise<ExportReport> {
  const options = readOptions<ExportOptions>(given);
  return await exportFiles({ files: [file], hasMain: true, owners: null }, directory, options);
}

/**
 * Writes several MemoryFiles to one checkpoint, as gVisor's kernel does: their metadata in one
 * file, their contents in the other. Each has a resource id, "container:path" or "path". The one
 * under "" is the kernel's main file, which has no resource id. It is written first (an empty one
 * if there is none); the others follow in the map's order, which is their order in a restore.
 *
 * @throws as `exportTo`
 * @throws {RangeError} for a bad id, or ids of more than 16 MiB together
 */
export async function exportAll(
  directory: string,
  files: Readonly<Record<string, MemoryFile>> | ReadonlyMap<string, MemoryFile>,
  given?: Nullable<ExportOptions> | null,
): Promise<ExportReport> {
  const options = readOptions<ExportOptions>(given);
  const entries = entriesOf("files", files);
  const named = entries.filter(([id]) => id !== MAIN_ID);
  const main = entries.filter(([id]) => id === MAIN_ID);
  const owners = named.map(([id]) => parseResourceId(id));
  checkOwners(owners);
  const ordered = [...main, ...named].map(([, file]) => file);
  return await exportFiles(
    { files: ordered, hasMain: main.length > 0, owners },
    directory,
    options,
  );
}

async function exportFiles(
  plan: ExportPlan,
  directory: string,
  options: ExportOptions,
): Promise<ExportReport> {
  for (const file of plan.files) {
    if (!(file instanceof MemoryFile))
      throw new TypeError(`Expected file to be a MemoryFile, got ${showValue(file)}`);
    coreOf(file).requireLive("exportTo()");
  }
  checkWatchers(options);
  checkMode(options.mode);
  if (options.foreignKind !== undefined)
    checkInteger("foreignKind", options.foreignKind, 0, GVISOR_KIND_MAX);
  requireGvisorPageSize();
  // Resolved now, because the working directory may change later.
  const path = localDirectory(directory);
  let work = writeExport(plan, { directory, path }, options);
  for (const file of plan.files) work = coreOf(file).hold(work);
  return await work;
}

interface ExportPlan {
  /** The main file, if there is one, then the owners' files. */
  readonly files: readonly MemoryFile[];
  readonly hasMain: boolean;
  /**
   * Null for a checkpoint of one file. A kernel's checkpoint has the list even if it is empty,
   * because a restore reads it.
   */
  readonly owners: readonly ResourceId[] | null;
}

const NOTHING: ComposedImage = {
  chunkHuge: new Uint8Array(0),
  runs: new RunBuilder(() => undefined).finish(),
  extents: { start: new Uint32Array(0), length: new Uint32Array(0) },
};

/** As the program gave it, and absolute. */
interface ExportPlace {
  readonly directory: string;
  readonly path: string;
}

async function writeExport(
  plan: ExportPlan,
  place: ExportPlace,
  options: ExportOptions,
): Promise<ExportReport> {
  const { signal } = options;
  for (const file of plan.files) await file.awaitLoad(undefined, { signal });
  return await whenAdmitted(place.path, signal, () => exportNow(plan, place, options));
}

async function exportNow(
  plan: ExportPlan,
  { directory, path }: ExportPlace,
  options: ExportOptions,
): Promise<ExportReport> {
  const startedAt = performance.now();
  const cores = plan.files.map(coreOf);
  for (const core of cores) core.requireStillLive("exportTo()");
  const states = cores.map((core) => collectImage(core.allocator));
  for (const { runs } of states) checkKinds(runs, options.foreignKind);
  const sources = states.map((state, i) => sourceOf(cores[i]!, state));
  const writer = await ExportWriter.open(path, options);
  return await closing(writer, async () => {
    const mostBytes = sources.reduce((total, source) => total + mostBytesOf(source), 0);
    const written = await writeUsedPages(
      { ...PLAIN, sources, sink: writer.describe(mostBytes) },
      options,
    );
    const { writtenBytes } = written;
    options.onProgress?.({ writtenBytes, totalBytes: writtenBytes });
    // Contents are raw and in the order of memory, so the format need not say where they are.
    const images: ComposedImage[] = [];
    for (const [i, state] of states.entries()) {
      const table = openTable(sources[i]!.table);
      const { chunkHuge } = state;
      const runs = withoutFreed(state, findFreed(cores[i]!, sources[i]!, table));
      const extents = await inSlices(storedExtents(sources[i]!, table));
      images.push({ chunkHuge, runs, extents });
    }
    const metadata = encodeAll(plan, images, options);
    options.signal?.throwIfAborted();
    await writer.commit(metadata, written.writtenBytes);
    return {
      directory,
      usedBytes:
        images.reduce((total, { runs }) => total + countPages(usedRuns(runs).length), 0) *
        PAGE_SIZE,
      pagesBytes: written.writtenBytes,
      zeroBytes: written.zeroPages * PAGE_SIZE,
      metaBytes: metadata.byteLength,
      extents: images.reduce((total, { extents }) => total + extents.start.length, 0),
      durationMs: performance.now() - startedAt,
    };
  });
}

/** The description of a file for the threads. Each file has a table of its own. */
function sourceOf(
  { control, mapping, loader }: FileCore,
  { chunkHuge, runs }: Pick<ComposedImage, "chunkHuge" | "runs">,
): WriteSource {
  const table = createTable(chunkHuge.length * CHUNK_PAGES, false).handle;
  const { fd, base } = mapping;
  const overlay = loader?.state.handle.overlay ?? null;
  return { control: control.buffer, fd, base, overlay, ...usedRuns(runs), address: null, table };
}

/** Pages are written raw, from the beginning of the file. */
const PLAIN = {
  hashSeed: 0,
  compression: "none",
  firstFrame: 0,
  writtenBytes: 0,
  progressBytes: 0,
  isMove: false,
} as const;

/**
 * The metadata of one file, or of a kernel's checkpoint with the list of owners after the main
 * file's metadata.
 */
function encodeAll(
  { hasMain, owners }: ExportPlan,
  images: readonly ComposedImage[],
  options: ExportOptions,
): Uint8Array {
  const parts = (hasMain ? images : [NOTHING, ...images]).map((image) =>
    withLength(encodeMetadata(imageToMetadata(image, options))),
  );
  if (owners === null) return parts[0]!;
  return concatenate([parts[0]!, encodeOwners(owners), ...parts.slice(1)]);
}

/**
 * Into a buffer of its own, which native code needs: Buffer.concat takes small ones from a pool.
 */
function concatenate(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(
    new ArrayBuffer(parts.reduce((total, part) => total + part.byteLength, 0)),
  );
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.byteLength;
  }
  return whole;
}

function usedRuns(runs: ImageRuns): { start: Uint32Array; length: Uint32Array } {
  const isUsed = (_: number, i: number) => runs.state[i] === RunState.used;
  return { start: runs.start.filter(isUsed), length: runs.length.filter(isUsed) };
}

/** The runs without pages that were freed before their contents were stored. */
function withoutFreed(
  { chunkHuge, runs }: Pick<ComposedImage, "chunkHuge" | "runs">,
  freed: PageRuns,
): ImageRuns {
  if (freed.start.length === 0) return runs;
  const kept = new RunBuilder(() => undefined);
  let next = 0;
  let previousHuge: number | undefined;
  for (let i = 0; i < runs.start.length; i++) {
    const start = runs.start[i]!;
    const end = start + runs.length[i]!;
    const huge = chunkHuge[Math.floor(start / CHUNK_PAGES)];
    if (huge !== previousHuge) kept.startGroup();
    previousHuge = huge;
    const values = [runs.refs[i]!, runs.kind[i]!, runs.group[i]!] as const;
    next = splitAtFreed(freed, next, [start, end], (first, last, isFreed) => {
      if (!isFreed) kept.push(first, last, runs.state[i]!, ...values);
      else if (huge === 1) kept.push(first, last, RunState.subReleased, 0, 0, 0);
    });
  }
  return kept.finish();
}

/**
 * The allocator's state at one instant. Waste and releasing pages get the state that a release
 * gives them: free, or sub-released if the rest of their huge page is in use. (A huge page without
 * used pages becomes free, even if gVisor would have lost count of its pages: see COUNTED in
 * allocator/waste.ts.)
 */
function collectImage(allocator: Allocator): { chunkHuge: Uint8Array; runs: ImageRuns } {
  const runs = new RunBuilder(() => undefined);
  allocator.lock();
  try {
    const chunkHuge = new Uint8Array(allocator.set.size / CHUNK_PAGES);
    let previousHuge = false;
    allocator.visitRuns((start, end, state, huge, refs, kind, group) => {
      if (huge) chunkHuge.fill(1, Math.floor(start / CHUNK_PAGES), Math.ceil(end / CHUNK_PAGES));
      if (huge !== previousHuge) runs.startGroup();
      previousHuge = huge;
      if (state === USED) runs.push(start, end, RunState.used, refs, kind, group);
      else if (huge) runs.push(start, end, RunState.subReleased, 0, 0, 0);
    });
    return { chunkHuge, runs: runs.finish() };
  } finally {
    allocator.unlock();
  }
}
