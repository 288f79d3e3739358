/**
 * A checkpoint of either format, opened for looking at: one description, whoever wrote it. Metadata has been read and
 * validated, section by section, by the code that a restore uses; page contents have not been touched. What is damaged can be
 * looked at as far as it goes.
 */
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { closeFile } from "../../ffi/index.ts";
import { SUB_RELEASED, USED } from "../allocator/states.ts";
import { examineCheckpoint, openCheckpoint } from "../checkpoint/directory.ts";
import type { DecodedCheckpoint } from "../checkpoint/decode.ts";
import { VERSION } from "../checkpoint/format.ts";
import { CorruptCheckpointError } from "../errors/errors.ts";
import { openExport } from "../gvisor/directory.ts";
import { byteSourceOf } from "../gvisor/import.ts";
import { PAGE_BYTES, RunState } from "../gvisor/image.ts";
import { MAIN_ID, readCheckpoint } from "../gvisor/read-checkpoint.ts";
import { PAGE_SIZE } from "../pages/units.ts";
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
  readonly extents: {
    readonly start: ArrayLike<number>;
    readonly length: ArrayLike<number>;
    readonly offset: Float64Array;
  };
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
export function openAnyCheckpoint(
  directory: string,
  format: FormatName | undefined,
): CheckpointDescription {
  const files = listFiles(directory);
  if (formatOf(files, format) === "gvisor") return openGvisor(directory, files);
  const { image, pagesFd, pagesPath } = openCheckpoint(directory);
  return describeNative(image, { files, pagesFd, pagesPath });
}

/** A checkpoint that may be damaged. */
export interface Examination extends Disposable {
  readonly format: FormatName;
  /** What is wrong with the metadata: all of it, for the native format; for gVisor's, which has no parts, the first thing. */
  readonly problems: readonly string[];
  /** Null if anything is. */
  readonly checkpoint: CheckpointDescription | null;
  /** What page contents can be checked against, also where it is not known whose they are. */
  readonly checksums: Uint32Array | null;
  readonly pageSize: number;
  /** Null if the file is missing. */
  readonly pagesFd: number | null;
}

/** @throws {SyscallError} */
export function examineAnyCheckpoint(
  directory: string,
  format: FormatName | undefined,
): Examination {
  const files = listFiles(directory);
  const found = formatOf(files, format);
  try {
    return found === "gvisor" ? examineGvisor(directory, files) : examineNative(directory, files);
  } catch (error) {
    if (!(error instanceof CorruptCheckpointError)) throw error;
    const nothing = { checkpoint: null, checksums: null, pageSize: PAGE_SIZE, pagesFd: null };
    return { ...nothing, format: found, problems: [error.message], [Symbol.dispose]: () => {} };
  }
}

function examineGvisor(directory: string, files: Record<string, number>): Examination {
  const checkpoint = openGvisor(directory, files);
  const { pageSize, pagesFd } = checkpoint;
  const close = () => checkpoint[Symbol.dispose]();
  return {
    format: "gvisor",
    problems: [],
    checkpoint,
    checksums: null,
    pageSize,
    pagesFd,
    [Symbol.dispose]: close,
  };
}

function examineNative(directory: string, files: Record<string, number>): Examination {
  const { image, checksums, problems, pagesFd, pagesPath } = examineCheckpoint(directory);
  const checkpoint =
    image === null || pagesFd === null
      ? null
      : describeNative(image, { files, pagesFd, pagesPath });
  return {
    format: "native",
    problems: problems.map(({ message }) => message),
    checkpoint,
    checksums,
    pageSize: PAGE_SIZE,
    pagesFd,
    [Symbol.dispose]: () => {
      if (pagesFd !== null) closeFile(pagesFd);
    },
  };
}

function formatOf(files: Record<string, number>, format: FormatName | undefined): FormatName {
  const isGvisor =
    !("meta" in files) && Object.keys(files).some((name) => name.startsWith("pages_meta.img"));
  return format ?? (isGvisor ? "gvisor" : "native");
}

function listFiles(directory: string): Record<string, number> {
  const entries = readdirSync(directory, { withFileTypes: true }).filter((entry) => entry.isFile());
  return Object.fromEntries(
    entries.map(({ name }) => [name, statSync(join(directory, name)).size]),
  );
}

function describeNative(
  image: DecodedCheckpoint,
  place: Pick<CheckpointDescription, "files" | "pagesFd" | "pagesPath">,
): CheckpointDescription {
  const { checksums, pageSize, userData } = image;
  let firstPage = 0;
  const memories = image.files.map(
    ({ name, chunkHuge, runs, extents, userData, contentPages }): MemoryDescription => {
      const offset = contiguousOffsets(extents.length, firstPage * pageSize, pageSize);
      firstPage += contentPages;
      return {
        id: name,
        chunkHuge,
        runs: { ...runs, state: Array.from(runs.state, (state) => NATIVE_STATES[state]!) },
        extents: { ...extents, offset },
        userDataBytes: userData?.byteLength ?? null,
      };
    },
  );
  return {
    format: "native",
    version: VERSION,
    pageSize,
    memories,
    checksums,
    userDataBytes: userData?.byteLength ?? null,
    ...place,
    [Symbol.dispose]: () => closeFile(place.pagesFd),
  };
}

/** Contents stand one behind the other, in the order of the extents. */
function contiguousOffsets(
  lengths: Uint32Array,
  firstOffset: number,
  pageSize: number,
): Float64Array {
  const offsets = new Float64Array(lengths.length);
  let offset = firstOffset;
  for (let i = 0; i < lengths.length; i++) {
    offsets[i] = offset;
    offset += lengths[i]! * pageSize;
  }
  return offsets;
}

const NATIVE_STATES: Readonly<Record<number, RunStateName>> = {
  [USED]: "used",
  [SUB_RELEASED]: "sub-released",
};
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
