/**
 * A checkpoint of either format, opened for looking at: one description, whoever wrote it. Metadata has been read and
 * validated, section by section, by the code that a restore uses; page contents have not been touched.
 */
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { closeFile } from "../../ffi/index.ts";
import { SUB_RELEASED, USED } from "../allocator/states.ts";
import { openCheckpoint } from "../checkpoint/directory.ts";
import { VERSION } from "../checkpoint/format.ts";
import { openExport } from "../gvisor/directory.ts";
import { byteSourceOf } from "../gvisor/import.ts";
import { PAGE_BYTES, RunState } from "../gvisor/image.ts";
import { MAIN_ID, readCheckpoint } from "../gvisor/read-checkpoint.ts";
import { UsageError } from "./arguments.ts";

export type FormatName = "native" | "gvisor";
export type RunStateName = "used" | "sub-released" | "waste";

/** A MemoryFile in a checkpoint. */
export interface MemoryDescription {
  /** Its id; null for gVisor's main file, which has none. */
  readonly id: string | null;
  readonly chunkHuge: Uint8Array;
  /** Runs of pages that are not free, as columns. */
  readonly runs: {
    readonly start: ArrayLike<number>;
    readonly length: ArrayLike<number>;
    readonly state: readonly RunStateName[];
    readonly refs: ArrayLike<number>;
    readonly kind: ArrayLike<number>;
    readonly group: ArrayLike<number>;
  };
  readonly extents: { readonly start: ArrayLike<number>; readonly length: ArrayLike<number>; readonly offset: Float64Array };
  readonly userDataBytes: number | null;
}

export interface CheckpointDescription extends Disposable {
  readonly format: FormatName;
  readonly version: number;
  readonly pageSize: number;
  /** Files of the directory and their bytes, also those that are no part of the checkpoint. */
  readonly files: Readonly<Record<string, number>>;
  readonly memories: readonly MemoryDescription[];
  /** CRC-32 of each page with contents, in the order of the extents, file by file; null if the format has none. */
  readonly checksums: Uint32Array | null;
  /** Of the checkpoint as a whole. */
  readonly userDataBytes: number | null;
  /** The file that holds page contents, open for reading until this is disposed. */
  readonly pagesFd: number;
  readonly pagesPath: string;
}

/** @throws {UsageError} */
export function checkFormat(name: string | undefined): FormatName | undefined {
  if (name === undefined || name === "native" || name === "gvisor") return name;
  throw new UsageError(`Expected --format to be native or gvisor, got ${JSON.stringify(name)}`);
}

/** @throws {CorruptCheckpointError} {SyscallError} */
export function openAnyCheckpoint(directory: string, format: FormatName | undefined): CheckpointDescription {
  const files = listFiles(directory);
  const isGvisor = !("meta" in files) && Object.keys(files).some((name) => name.startsWith("pages_meta.img"));
  return (format ?? (isGvisor ? "gvisor" : "native")) === "gvisor"
    ? openGvisor(directory, files)
    : openNative(directory, files);
}

function listFiles(directory: string): Record<string, number> {
  const entries = readdirSync(directory, { withFileTypes: true }).filter((entry) => entry.isFile());
  return Object.fromEntries(entries.map(({ name }) => [name, statSync(join(directory, name)).size]));
}

function openNative(directory: string, files: Record<string, number>): CheckpointDescription {
  const { image, pagesFd, pagesPath } = openCheckpoint(directory);
  const { checksums, pageSize, userData } = image;
  let firstPage = 0;
  const memories = image.files.map(({ name, chunkHuge, runs, extents, userData }): MemoryDescription => {
    const offset = contiguousOffsets(extents.length, firstPage * pageSize, pageSize);
    firstPage += extents.length.reduce((sum, count) => sum + count, 0);
    return {
      id: name,
      chunkHuge,
      runs: { ...runs, state: Array.from(runs.state, (state) => NATIVE_STATES[state]!) },
      extents: { ...extents, offset },
      userDataBytes: userData?.byteLength ?? null,
    };
  });
  return {
    format: "native",
    version: VERSION,
    pageSize,
    files,
    memories,
    checksums,
    userDataBytes: userData?.byteLength ?? null,
    pagesFd,
    pagesPath,
    [Symbol.dispose]: () => closeFile(pagesFd),
  };
}

/** Contents stand one behind the other, in the order of the extents. */
function contiguousOffsets(lengths: Uint32Array, firstOffset: number, pageSize: number): Float64Array {
  const offsets = new Float64Array(lengths.length);
  let offset = firstOffset;
  for (let i = 0; i < lengths.length; i++) {
    offsets[i] = offset;
    offset += lengths[i]! * pageSize;
  }
  return offsets;
}

const NATIVE_STATES: Readonly<Record<number, RunStateName>> = { [USED]: "used", [SUB_RELEASED]: "sub-released" };
const GVISOR_STATES: Readonly<Record<number, RunStateName>> = {
  [RunState.used]: "used",
  [RunState.subReleased]: "sub-released",
  [RunState.waste]: "waste",
};

function openGvisor(directory: string, files: Record<string, number>): CheckpointDescription {
  const { metadata, pages } = openExport(directory);
  const contents = pages ?? metadata;
  const close = () => {
    closeFile(metadata.fd);
    if (pages !== null) closeFile(pages.fd);
  };
  try {
    const images = [...readCheckpoint(byteSourceOf(metadata), pages)];
    return {
      format: "gvisor",
      version: 1,
      pageSize: PAGE_BYTES,
      files,
      memories: images.map(([id, { chunkHuge, runs, extents }]) => ({
        id: id === MAIN_ID ? null : id,
        chunkHuge,
        runs: { ...runs, state: Array.from(runs.state, (state) => GVISOR_STATES[state]!) },
        extents: { start: extents.start, length: extents.length, offset: extents.fileOffset },
        userDataBytes: null,
      })),
      checksums: null,
      userDataBytes: null,
      pagesFd: contents.fd,
      pagesPath: contents.path,
      [Symbol.dispose]: close,
    };
  } catch (error) {
    close();
    throw error;
  }
}
