/**
 * From a gVisor checkpoint to a MemoryFile: the metadata is read and validated at once, page contents are loaded as those
 * of a native checkpoint are, from `pages.img` or, in the form without it, from between the headers of `pages_meta.img`.
 *
 * gVisor's format has no checksums: damaged page contents are not noticed, damaged metadata is.
 */
import { closeFile } from "../../ffi/index.ts";
import { SUB_RELEASED, USED, WASTE } from "../allocator/states.ts";
import type { RestoreImage } from "../checkpoint/restore.ts";
import { readBytes } from "../checkpoint/staging.ts";
import { CorruptCheckpointError } from "../errors.ts";
import { fileOver, type MemoryFile } from "../memory-file.ts";
import { checkQueue, type LoadOptions } from "../options.ts";
import { awaitUnlessBackground, restoreCore } from "../restore.ts";
import { Word } from "../shared/control.ts";
import { type OpenedFile, openExport } from "./directory.ts";
import { type ImageExtents, type ImageRuns, type MemoryFileImage, PAGE_BYTES, RunState } from "./image.ts";
import { requireGvisorPageSize } from "./page-size.ts";
import { readImage } from "./read-image.ts";
import type { ByteSource } from "./stream.ts";

const STATE_OF_RUN: Readonly<Record<number, number>> = {
  [RunState.waste]: WASTE,
  [RunState.used]: USED,
  [RunState.subReleased]: SUB_RELEASED,
};

/**
 * Makes a MemoryFile from what gVisor (or `exportTo`) wrote to a directory. References, kinds, groups, huge chunks and
 * sub-released pages are as they were; waste that gVisor had not released is released here.
 *
 * The options are those of `MemoryFile.loadFrom`: with `background` it returns as soon as the metadata stands.
 *
 * @throws {CorruptCheckpointError} if the directory holds no gVisor checkpoint, or one that gVisor would not have written
 * @throws {OutOfMemoryError} if it asks for more than limitBytes
 * @throws {SyscallError} if it cannot be read
 * @throws {UnsupportedError} on a machine whose pages are not 4 KiB
 */
export async function importFrom(directory: string, options: LoadOptions = {}): Promise<MemoryFile> {
  options.signal?.throwIfAborted();
  checkQueue(options.queue);
  requireGvisorPageSize();
  return await awaitUnlessBackground(startImport(directory, options), options);
}

function startImport(directory: string, options: LoadOptions): MemoryFile {
  const { metadata, pages } = openExport(directory);
  const contents = pages ?? metadata;
  let restorable: Restorable;
  try {
    restorable = toRestorable(readImage(byteSourceOf(metadata), pages).image);
  } catch (error) {
    closeFile(contents.fd);
    throw error;
  } finally {
    if (contents !== metadata) closeFile(metadata.fd);
  }
  const { image, extentOffset } = restorable;
  const core = restoreCore(image, { fd: contents.fd, path: contents.path, extentOffset, checksums: null }, options);
  if (core.words[Word.WastePages]! > 0) core.releaser.schedule();
  return fileOver(core, null);
}

/** An open file as the format's codec reads it. */
export function byteSourceOf({ fd, path, sizeBytes }: OpenedFile): ByteSource {
  return {
    path,
    sizeBytes,
    read: (offset, lengthBytes) => {
      const bytes = readBytes(fd, offset, lengthBytes, path);
      if (bytes.byteLength === lengthBytes) return bytes;
      throw new CorruptCheckpointError(`File has become shorter than ${sizeBytes} bytes`, { path, offset });
    },
  };
}

interface Restorable {
  readonly image: RestoreImage;
  readonly extentOffset: Float64Array;
}

function toRestorable({ chunkHuge, runs, extents }: MemoryFileImage): Restorable {
  const used = keepUsed(runs, extents);
  return {
    image: {
      chunkHuge,
      runs: {
        start: runs.start,
        length: runs.length,
        state: Uint32Array.from(runs.state, (state) => STATE_OF_RUN[state]!),
        refs: runs.refs,
        // Waste has no owner, whatever it is accounted to.
        kind: Uint32Array.from(runs.kind, (kind, i) => (runs.state[i] === RunState.used ? kind : 0)),
        group: runs.group.map((group, i) => (runs.state[i] === RunState.used ? group : 0)),
      },
      extents: { start: used.start, length: used.length },
    },
    extentOffset: used.fileOffset,
  };
}

/** The extents without what they have of waste: nobody will look at it, so it is not loaded. */
function keepUsed(runs: ImageRuns, extents: ImageExtents): ImageExtents {
  if (!runs.state.includes(RunState.waste)) return extents;
  const start: number[] = [];
  const length: number[] = [];
  const fileOffset: number[] = [];
  let run = 0;
  for (let i = 0; i < extents.start.length; i++) {
    const end = extents.start[i]! + extents.length[i]!;
    for (let page = extents.start[i]!; page < end; ) {
      while (runs.start[run]! + runs.length[run]! <= page) run++;
      const next = Math.min(end, runs.start[run]! + runs.length[run]!);
      if (runs.state[run] === RunState.used) {
        start.push(page);
        length.push(next - page);
        fileOffset.push(extents.fileOffset[i]! + (page - extents.start[i]!) * PAGE_BYTES);
      }
      page = next;
    }
  }
  return { start: Uint32Array.from(start), length: Uint32Array.from(length), fileOffset: Float64Array.from(fileOffset) };
}
