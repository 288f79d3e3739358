/**
 * Refresh: a restored file gets the newer checkpoint of its place. A new file is restored beside
 * the old one: unchanged pages are copied from memory, and only the others are loaded. A mapped
 * file maps all pages again, and only the others are checked.
 */
import { copyMemory, quote } from "../../ffi/index.ts";
import { corrupt, crc32 } from "../checkpoint/format.ts";
import { BLOCK_PAGES, type ColumnPlace } from "../checkpoint/page-map.ts";
import type { DecodedManifest } from "../checkpoint/decode.ts";
import { hex } from "../checkpoint/page-file.ts";
import type { FileCore } from "../core/core.ts";
import { inheritCheckpoints, knownIds, noteCheckpoint } from "../core/known-checkpoints.ts";
import type { LoadOptions } from "../core/options.ts";
import { SeveralFilesError, UnsupportedError } from "../errors/errors.ts";
import { HUGE_PAGES_MIN, makeHuge } from "../load/huge-pages.ts";
import {
  HUGE_PAGE_SIZE,
  PAGE_SIZE,
  PAGES_PER_HUGE_PAGE as PAGES_PER_UNIT,
} from "../pages/units.ts";
import type { PageSource } from "../source/description.ts";
import { contentName } from "../source/describe.ts";
import { openReader } from "../source/open.ts";
import { inSlices, type Slices } from "../threads/slices.ts";
import { readContent } from "../source/read-content.ts";
import { baseName } from "../control/base-name.ts";
import { Word } from "../control/control.ts";
import { findChangedPages, type PageRun } from "./changed-pages.ts";
import { closeOpened, isNewest, openCheckpointAt, type OpenedCheckpoint } from "./open-place.ts";
import { type Restored, restoreFiles } from "./restore.ts";

/** The place and options from which a file was restored. */
export interface RestoreOrigin {
  readonly where: string;
  readonly options: LoadOptions;
  readonly manifest: DecodedManifest;
  /** Of OpenedCheckpoint. */
  readonly version: string | null;
}

export interface Refreshed {
  readonly origin: RestoreOrigin;
  /** The new file. @throws {DestroyedError} if a thread has destroyed the old one meanwhile */
  take(): FileCore;
}

/**
 * The file that takes the place of `core`. Undefined if the place has no newer checkpoint.
 * Precondition: the program has not written to the file since it was restored.
 *
 * @throws {UnsupportedError} if the memory is a file on disk
 * @throws as `openCheckpointAt` and `restoreFiles`, with the file unchanged
 */
export async function refreshCore(
  core: FileCore,
  origin: RestoreOrigin,
): Promise<Refreshed | undefined> {
  if (origin.options.path !== undefined)
    throw new UnsupportedError(
      `Cannot refresh a file with the option path, ${quote(origin.options.path)}: the next file ` +
        "needs it as well; load without path",
    );
  const refreshed = await restoreNext(core, { ...origin, options: optionsOf(origin) });
  if (refreshed === undefined) return undefined;
  const { restored, opened } = refreshed;
  const { manifest, s3Place, version } = opened;
  const [next] = restored.cores as [FileCore];
  await restored.finish();
  const take = () => {
    destroyOnError(next, () => {
      core.requireStillLive("refresh()");
      inheritCheckpoints(core, next);
      if (s3Place !== null) noteCheckpoint(next, s3Place, manifest.id, knownIds(next, s3Place));
    });
    return next;
  };
  return { origin: { ...origin, manifest, version }, take };
}

/** A signal that was aborted after the load has ended nothing: it does not end later loads. */
function optionsOf({ options }: RestoreOrigin): LoadOptions {
  return options.signal?.aborted === true ? { ...options, signal: undefined } : options;
}

function destroyOnError(core: FileCore, step: () => void): void {
  try {
    step();
  } catch (error) {
    core.destroy();
    throw error;
  }
}

/** Begins to restore the newer checkpoint, if there is one. */
async function restoreNext(
  core: FileCore,
  origin: RestoreOrigin,
): Promise<{ restored: Restored; opened: OpenedCheckpoint } | undefined> {
  const { where, options, version } = origin;
  if (version !== null && (await isNewest(where, options, version))) return undefined;
  const opened = await openCheckpointAt(where, options);
  const { manifest, source } = opened;
  let isTaken = false;
  try {
    const [file] = manifest.files;
    if (manifest.id === origin.manifest.id) return undefined;
    if (file === undefined || manifest.files.length > 1)
      throw new SeveralFilesError(
        where,
        manifest.files.map(({ name }) => name),
      );
    // Pages to copy must be loaded.
    if (core.mayMissPages)
      await core.loader!.awaitLoad(0, core.words[Word.SizePages]!, false, options.signal);
    const [before] = origin.manifest.files;
    const { map, ranks, unchanged } = await inSlices(
      findChangedPages(
        { map: before!.pageMap, pageFiles: origin.manifest.pageFiles },
        { map: file.pageMap, pageFiles: manifest.pageFiles },
      ),
    );
    const isMapped = (core.mapping.overlay?.pages ?? 0) > 0;
    const crcs = isMapped ? null : await readCrcs(source, file.crcs);
    const contents =
      crcs === null
        ? { map: file.pageMap, checksums: file.crcs, checked: unchanged }
        : { map, checksums: ranks.map((rank) => crcs[rank]!) };
    isTaken = true;
    const restored = restoreFiles(source, [{ image: file, ...contents, options }], {
      ...options,
      onEnd: (isLoaded) => opened.close(isLoaded),
      awaitsEnd: opened.isCaching,
    });
    const [to] = restored.cores as [FileCore];
    if (isMapped) to.mapping.overlay?.setBase(baseName(hex(manifest.id), file.name));
    else await inSlices(copyPages(core, to, unchanged));
    return { restored, opened };
  } catch (error) {
    if (isTaken) void opened.close(false);
    throw error;
  } finally {
    if (!isTaken) closeOpened(opened);
  }
}

/** A pause after each unit: copying it takes 1 ms where the kernel refuses a huge page. */
function* copyPages(from: FileCore, to: FileCore, runs: readonly PageRun[]): Slices<void> {
  let unit = -1;
  for (let row = 0; row < runs.length; row++) {
    const { start, length } = runs[row]!;
    for (let at = start; at < start + length; ) {
      if (at >= (unit + 1) * PAGES_PER_UNIT) {
        yield;
        unit = Math.floor(at / PAGES_PER_UNIT);
        const address = to.mapping.base + unit * HUGE_PAGE_SIZE;
        if (pagesIn(unit, runs, row) >= HUGE_PAGES_MIN) makeHuge(address);
      }
      const pages = Math.min(start + length, (unit + 1) * PAGES_PER_UNIT) - at;
      destroyOnError(to, () => from.requireStillLive("refresh()"));
      const offset = at * PAGE_SIZE;
      copyMemory(to.mapping.base + offset, from.mapping.base + offset, pages * PAGE_SIZE);
      at += pages;
    }
  }
}

/** Pages of the unit in the runs from `row` on. */
function pagesIn(unit: number, runs: readonly PageRun[], row: number): number {
  const first = unit * PAGES_PER_UNIT;
  const end = first + PAGES_PER_UNIT;
  let pages = 0;
  for (; row < runs.length && runs[row]!.start < end; row++) {
    const { start, length } = runs[row]!;
    pages += Math.min(end, start + length) - Math.max(first, start);
  }
  return pages;
}

/** The CRC-32 of each page, from the manifest. @throws {CorruptCheckpointError} */
async function readCrcs(source: PageSource, place: ColumnPlace): Promise<Uint32Array> {
  const { offset, count, widthBytes, blockCrcs } = place;
  const reader = await openReader(source, "demand");
  try {
    const lengthBytes = count * widthBytes;
    const bytes = await readContent(reader, { content: 0, offset, lengthBytes });
    for (let block = 0; block < blockCrcs.length; block++) {
      const first = block * BLOCK_PAGES * widthBytes;
      const found = bytes.subarray(first, first + BLOCK_PAGES * widthBytes);
      if (bytes.byteLength !== lengthBytes || crc32(found) !== blockCrcs[block])
        throw corrupt(contentName(source, 0), "Block checksum does not match", "pageCrcs", offset);
    }
    return new Uint32Array(bytes.buffer);
  } finally {
    await reader.close();
  }
}
