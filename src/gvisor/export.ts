/**
 * From a MemoryFile to the two files of a gVisor checkpoint, such that gVisor's own LoadFrom takes them. What is written is
 * what a native save writes, found and written by the same threads; only the metadata is gVisor's.
 */
import { checkInteger } from "../../ffi/index.ts";
import type { Allocator } from "../allocator/allocator.ts";
import { USED } from "../allocator/states.ts";
import type { SaveOptions, SaveReport } from "../checkpoint/save.ts";
import { writeUsedPages } from "../checkpoint/write-pages.ts";
import type { FileCore } from "../file-core.ts";
import { coreOf, type MemoryFile } from "../memory-file.ts";
import { PAGE_SIZE } from "../units.ts";
import { checkKinds, type ComposeOptions, imageToMetadata } from "./compose.ts";
import { ExportWriter } from "./directory.ts";
import { CHUNK_PAGES, GVISOR_KIND_MAX, type ImageRuns, RunState } from "./image.ts";
import { encodeMetadata } from "./metadata.ts";
import { requireGvisorPageSize } from "./page-size.ts";
import { RunBuilder } from "./run-builder.ts";
import { frameMetadata } from "./stream.ts";

/** `userData` has no place in gVisor's format. */
export interface ExportOptions extends Pick<SaveOptions, "signal" | "onProgress">, ComposeOptions {}

/**
 * Writes `pages_meta.img` and `pages.img` (mode 0600) to a directory, which is made if it is not there. All references,
 * kinds, groups, huge chunks and sub-released pages are in them; pages that are uncommitted or zero take no room. Waits
 * until everything is loaded. The directory has the previous export until this one is complete, see directory.ts.
 *
 * @throws {RangeError} if a page is of a kind that gVisor does not have (6 to 255) and `foreignKind` is not given
 * @throws {CheckpointBusyError} if another save has the directory
 * @throws {SyscallError} if it cannot be written
 * @throws {UnsupportedError} on a machine whose pages are not 4 KiB
 * @throws the signal's reason
 */
export async function exportTo(file: MemoryFile, directory: string, options: ExportOptions = {}): Promise<SaveReport> {
  const core = coreOf(file);
  core.requireLive("exportTo()");
  options.signal?.throwIfAborted();
  if (options.foreignKind !== undefined) checkInteger("foreignKind", options.foreignKind, 0, GVISOR_KIND_MAX);
  requireGvisorPageSize();
  return await core.hold(exportCore(file, core, directory, options));
}

async function exportCore(file: MemoryFile, core: FileCore, directory: string, options: ExportOptions): Promise<SaveReport> {
  const startedAt = performance.now();
  await file.awaitLoad(undefined, { signal: options.signal });
  core.requireLive("exportTo()");
  const { chunkHuge, runs } = collectImage(core.allocator);
  checkKinds(runs, options.foreignKind);
  const isUsed = (_: number, i: number) => runs.state[i] === RunState.used;
  const used = { start: runs.start.filter(isUsed), length: runs.length.filter(isUsed) };
  const writer = new ExportWriter(directory);
  try {
    const target = { fd: writer.pagesFd, path: writer.pagesPath };
    const { fd, base } = core.mapping;
    const written = await writeUsedPages([{ fd, base, ...used }], target, options);
    const extents = written.extents[0]!;
    const metadata = frameMetadata(encodeMetadata(imageToMetadata({ chunkHuge, runs, extents }, options)));
    options.signal?.throwIfAborted();
    await writer.commit(metadata);
    return {
      directory,
      usedBytes: sum(used.length) * PAGE_SIZE,
      pagesBytes: written.checksums.length * PAGE_SIZE,
      zeroBytes: written.zeroPages * PAGE_SIZE,
      metaBytes: metadata.byteLength,
      extents: extents.start.length,
      durationMs: performance.now() - startedAt,
    };
  } finally {
    writer.close();
  }
}

function sum(lengths: Uint32Array): number {
  return lengths.reduce((total, length) => total + length, 0);
}

/**
 * The allocator's state at one instant. Waste, and what is being released, becomes what a release would make of it: free, or
 * sub-released where the rest of its huge page is in use. (A huge page none of whose pages is in use is free here, also
 * where gVisor would have lost count of its pages: see COUNTED in allocator.ts.)
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
