/**
 * Makes MemoryFiles from a gVisor checkpoint. Metadata is read and validated first. Page contents
 * load like those of a native checkpoint: from `pages.img`, or from `pages_meta.img` between its
 * headers in the form without a pages file.
 *
 * gVisor's format has no checksums: damaged metadata is detected, damaged page contents are not.
 */
import { checkFunction, closeFile } from "../../ffi/index.ts";
import { SUB_RELEASED, USED, WASTE } from "../allocator/states.ts";
import { readBytes } from "../checkpoint/staging.ts";
import { CorruptCheckpointError } from "../errors/errors.ts";
import { fileOver, type MemoryFile } from "../file/memory-file.ts";
import {
  checkLoadOptions,
  type LoadOptions,
  type MemoryFileOptions,
  type Nullable,
  readOptions,
} from "../core/options.ts";
import {
  type Restored,
  type RestoreFile,
  restoreFiles,
  type RestoreOptions,
} from "../restore/restore.ts";
import { duplicateFiles } from "../source/file-source.ts";
import { CodecId } from "../codec/codec.ts";
import type { PageMap } from "../checkpoint/page-map.ts";
import {
  CheckpointFiles,
  type LoadAllOptions,
  optionsById,
  restoreOptions,
} from "../file/several.ts";
import { Word } from "../control/control.ts";
import { localDirectory, type OpenedFile, openExport } from "./directory.ts";
import {
  type ImageExtents,
  type ImageRuns,
  type MemoryFileImage,
  PAGE_BYTES,
  RunState,
} from "./image.ts";
import { requireGvisorPageSize } from "./page-size.ts";
import { MAIN_ID, readCheckpoint } from "./read-checkpoint.ts";
import type { ByteSource } from "./stream.ts";

const STATE_OF_RUN: Readonly<Record<number, number>> = {
  [RunState.waste]: WASTE,
  [RunState.used]: USED,
  [RunState.subReleased]: SUB_RELEASED,
};

/**
 * Makes a MemoryFile from a directory that gVisor or `exportTo` wrote. If the checkpoint has
 * several files, it is the main one. References, kinds, groups, huge chunks and sub-released pages
 * are kept. Waste that gVisor had not released is released here.
 *
 * The options are those of `MemoryFile.loadFrom`: with `background` the call returns as soon as the
 * metadata is read.
 *
 * @throws {NoCheckpointError} if the directory has no gVisor checkpoint
 * @throws {CorruptCheckpointError} if gVisor would not have written it
 * @throws {OutOfMemoryError} if it needs more than limitBytes
 * @throws {SyscallError} if it cannot be read
 * @throws {UnsupportedError} on a machine whose pages are not 4 KiB
 */
export async function importFrom(
  directory: string,
  given?: Nullable<LoadOptions> | null,
): Promise<MemoryFile> {
  const options = readOptions<LoadOptions>(given);
  checkLoadOptions(options);
  requireGvisorPageSize();
  const { onProgress } = options;
  const { ids, restored } = startImport(directory, () => options, {
    ...options,
    report: onProgress && (([loader]) => onProgress(loader!.stats())),
    ids: [MAIN_ID],
  });
  const file = fileOver(restored.cores[ids.indexOf(MAIN_ID)]!, null);
  await restored.finish();
  return file;
}

/**
 * Makes all MemoryFiles of a checkpoint, each under its resource id: "container:path", or "path"
 * without a container. The main file of gVisor's kernel, and the file that `exportTo` writes, have
 * the id "".
 *
 * Files load one after another in the order of the checkpoint, as gVisor's do; awaited pages of any
 * file come first. The options are those of `loadAll`.
 *
 * @throws as `importFrom`; no file is left open then
 */
export async function importAll(
  directory: string,
  given?: Nullable<LoadAllOptions> | null,
): Promise<CheckpointFiles> {
  const options = readOptions<LoadAllOptions>(given);
  checkLoadOptions(options);
  requireGvisorPageSize();
  if (options.fileOptions != null) checkFunction("fileOptions", options.fileOptions);
  const importing = restoreOptions(options);
  const { ids, restored } = startImport(directory, optionsById(options), importing);
  const files = ids.map((id, i) => [id, fileOver(restored.cores[i]!, null)] as const);
  await restored.finish();
  return new CheckpointFiles(files, null);
}

/** Files whose loads have begun: all files of the checkpoint, or those of `ids`. */
function startImport(
  directory: string,
  optionsOf: (id: string) => MemoryFileOptions,
  options: RestoreOptions & { readonly ids?: readonly string[] },
): { readonly ids: readonly string[]; readonly restored: Restored } {
  const { metadata, pages } = openExport(localDirectory(directory));
  const ids: string[] = [];
  const files: RestoreFile[] = [];
  try {
    for (const [id, image] of readCheckpoint(byteSourceOf(metadata), pages)) {
      if (options.ids !== undefined && !options.ids.includes(id)) continue;
      ids.push(id);
      files.push({ ...toRestorable(image), checksums: null, options: optionsOf(id) });
    }
    const { fd, path } = pages ?? metadata;
    const source = duplicateFiles([
      { fd: -1, path: metadata.path },
      { fd, path },
    ]);
    const restored = restoreFiles(source, files, options);
    for (const core of restored.cores)
      if (core.words[Word.WastePages]! > 0) core.releaser.schedule();
    return { ids, restored };
  } finally {
    closeFile(metadata.fd);
    if (pages !== null) closeFile(pages.fd);
  }
}

/** An open file as the decoder reads it. */
export function byteSourceOf({ fd, path, sizeBytes }: OpenedFile): ByteSource {
  return {
    path,
    sizeBytes,
    read: (offset, lengthBytes) => {
      const bytes = readBytes(fd, offset, lengthBytes, path);
      if (bytes.byteLength === lengthBytes) return bytes;
      throw new CorruptCheckpointError(`File has become shorter than ${sizeBytes} bytes`, {
        path,
        offset,
      });
    },
  };
}

function toRestorable({
  chunkHuge,
  runs,
  extents,
}: MemoryFileImage): Pick<RestoreFile, "image" | "map"> {
  const used = keepUsed(runs, extents);
  return {
    image: {
      chunkHuge,
      runs: {
        start: runs.start,
        length: runs.length,
        state: Uint32Array.from(runs.state, (state) => STATE_OF_RUN[state]!),
        refs: runs.refs,
        // Waste has no owner, whatever its kind in the checkpoint.
        kind: Uint32Array.from(runs.kind, (kind, i) =>
          runs.state[i] === RunState.used ? kind : 0,
        ),
        group: runs.group.map((group, i) => (runs.state[i] === RunState.used ? group : 0)),
      },
    },
    map: mapOf(used),
  };
}

/** Each extent is a raw frame of content 1: gVisor's offsets have gaps. */
function mapOf({ start, length, fileOffset }: ImageExtents): PageMap {
  return {
    extents: {
      start,
      length,
      frame: Uint32Array.from(start, (_, i) => i),
      framePage: new Uint32Array(start.length),
    },
    frames: {
      content: new Uint32Array(start.length).fill(1),
      codec: new Uint32Array(start.length).fill(CodecId.Raw),
      offset: fileOffset,
      storedBytes: Float64Array.from(length, (pages) => pages * PAGE_BYTES),
      pages: length,
    },
  };
}

/** The extents without waste pages. No view can show those, so they are not loaded. */
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
  return {
    start: Uint32Array.from(start),
    length: Uint32Array.from(length),
    fileOffset: Float64Array.from(fileOffset),
  };
}
