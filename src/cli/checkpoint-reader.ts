/**
 * Opens a checkpoint of either format for inspection, and describes both formats alike. The code of
 * a restore reads and validates the metadata. Page contents are not read. For a damaged checkpoint,
 * the readable parts are described.
 */
import { type Dirent, readdirSync, statSync } from "node:fs";
import { basename, join } from "node:path";
import { quote } from "../../ffi/index.ts";
import { SUB_RELEASED, USED } from "../allocator/states.ts";
import { CodecId } from "../codec/codec.ts";
import type { CheckableFile } from "../checkpoint/decode.ts";
import {
  closeContents,
  examineCheckpoint,
  type OpenContent,
  openCheckpoint,
} from "../checkpoint/directory.ts";
import { type DecodedFile, VERSION } from "../checkpoint/format.ts";
import type { ColumnPlace, PageMap } from "../checkpoint/page-map.ts";
import { CorruptCheckpointError, NoCheckpointError } from "../errors/errors.ts";
import { openExport } from "../gvisor/directory.ts";
import { PAGE_BYTES, RunState } from "../gvisor/image.ts";
import { byteSourceOf } from "../gvisor/import.ts";
import { MAIN_ID, readCheckpoint } from "../gvisor/read-checkpoint.ts";
import { PAGE_SIZE } from "../pages/units.ts";
import { UsageError } from "./arguments.ts";

export type FormatName = "native" | "gvisor";
export type RunStateName = "used" | "sub-released" | "waste";

/** A MemoryFile in a checkpoint. */
export interface MemoryDescription {
  /** Its name; null for gVisor's main file, which has none. */
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
  readonly pageMap: PageMap;
  readonly userDataBytes: number | null;
}

export interface CheckpointDescription extends Disposable {
  readonly format: FormatName;
  readonly version: number;
  /** null in gVisor's format. */
  readonly checkpointId: bigint | null;
  readonly pageSize: number;
  /**
   * Files of the directory and their bytes, including files that are not part of the checkpoint.
   */
  readonly files: Readonly<Record<string, number>>;
  readonly memories: readonly MemoryDescription[];
  readonly hasChecksums: boolean;
  /** Of the checkpoint as a whole. */
  readonly userDataBytes: number | null;
  /** By content index. */
  readonly contents: readonly OpenContent[];
}

/** @throws {UsageError} */
export function checkFormat(name: string | undefined): FormatName | undefined {
  if (name === undefined || name === "native" || name === "gvisor") return name;
  throw new UsageError(`Expected --format to be native or gvisor, got ${JSON.stringify(name)}`);
}

/** @throws {NoCheckpointError} {CorruptCheckpointError} {SyscallError} */
export function openAnyCheckpoint(
  directory: string,
  format: FormatName | undefined,
): CheckpointDescription {
  const files = listFiles(directory);
  return formatOf(files, format) === "gvisor"
    ? openGvisor(directory, files)
    : openNative(directory, files);
}

/** The contents of one MemoryFile that can be checked. */
export interface CheckableContents {
  readonly id: string | null;
  readonly pageMap: PageMap;
  /** null: the format has no checksums. */
  readonly crcs: ColumnPlace | null;
  readonly hashes: ColumnPlace | null;
}

/** A checkpoint that may be damaged. */
export interface Examination extends Disposable {
  readonly format: FormatName;
  /**
   * Problems of the metadata: all of them in the native format; only the first in gVisor's, which
   * has no parts.
   */
  readonly problems: readonly string[];
  readonly hasChecksums: boolean;
  readonly hashSeed: number;
  readonly checkable: readonly CheckableContents[];
  /** By content index; null: missing. */
  readonly contents: readonly (OpenContent | null)[];
}

/** @throws {NoCheckpointError} {SyscallError} */
export function examineAnyCheckpoint(
  directory: string,
  format: FormatName | undefined,
): Examination {
  const files = listFiles(directory);
  const found = formatOf(files, format);
  try {
    return found === "gvisor" ? examineGvisor(directory, files) : examineNative(directory);
  } catch (error) {
    if (!(error instanceof CorruptCheckpointError || error instanceof NoCheckpointError))
      throw error;
    return {
      format: found,
      problems: [error.message],
      hasChecksums: found === "native",
      hashSeed: 0,
      checkable: [],
      contents: [],
      [Symbol.dispose]: () => {},
    };
  }
}

function examineGvisor(directory: string, files: Record<string, number>): Examination {
  const { memories, contents, ...checkpoint } = openGvisor(directory, files);
  return {
    format: "gvisor",
    problems: [],
    hasChecksums: false,
    hashSeed: 0,
    checkable: memories.map(({ id, pageMap }) => ({ id, pageMap, crcs: null, hashes: null })),
    contents,
    [Symbol.dispose]: () => checkpoint[Symbol.dispose](),
  };
}

function examineNative(directory: string): Examination {
  const { header, problems, checkable, contents } = examineCheckpoint(directory);
  return {
    format: "native",
    problems: problems.map(({ message }) => message),
    hasChecksums: true,
    hashSeed: header?.hashSeed ?? 0,
    checkable: checkable.map(({ name, ...rest }: CheckableFile) => ({ id: name, ...rest })),
    contents,
    [Symbol.dispose]: () => closeContents(contents),
  };
}

function formatOf(files: Record<string, number>, format: FormatName | undefined): FormatName {
  const isGvisor =
    !("meta" in files) && Object.keys(files).some((name) => name.startsWith("pages_meta.img"));
  return format ?? (isGvisor ? "gvisor" : "native");
}

function listFiles(directory: string): Record<string, number> {
  let entries: Dirent[];
  try {
    entries = readdirSync(directory, { withFileTypes: true });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOTDIR")
      throw new TypeError(`Expected DIR to be a directory, got the file ${quote(directory)}`);
    if (code !== "ENOENT") throw error;
    throw new NoCheckpointError(directory, error);
  }
  const names = entries.flatMap((entry) => (entry.isFile() ? [entry.name] : []));
  return Object.fromEntries(names.map((name) => [name, statSync(join(directory, name)).size]));
}

function openNative(directory: string, files: Record<string, number>): CheckpointDescription {
  const { manifest, contents } = openCheckpoint(directory);
  return {
    format: "native",
    version: VERSION,
    checkpointId: manifest.id,
    pageSize: PAGE_SIZE,
    files,
    memories: manifest.files.map(describeFile),
    hasChecksums: true,
    userDataBytes: manifest.userData?.byteLength ?? null,
    contents,
    [Symbol.dispose]: () => closeContents(contents),
  };
}

function describeFile(file: DecodedFile): MemoryDescription {
  const { name, chunkHuge, runs, pageMap, userData } = file;
  return {
    id: name,
    chunkHuge,
    runs: { ...runs, state: Array.from(runs.state, (state) => NATIVE_STATES[state]!) },
    pageMap,
    userDataBytes: userData?.byteLength ?? null,
  };
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
  const contents = pages === null ? [metadata] : [metadata, pages];
  try {
    const images = [...readCheckpoint(byteSourceOf(metadata), pages)];
    return {
      format: "gvisor",
      version: 1,
      checkpointId: null,
      pageSize: PAGE_BYTES,
      files,
      memories: images.map(([id, { chunkHuge, runs, extents }]) => ({
        id: id === MAIN_ID ? null : id,
        chunkHuge,
        runs: { ...runs, state: Array.from(runs.state, (state) => GVISOR_STATES[state]!) },
        pageMap: rawPageMap(extents, contents.length - 1),
        userDataBytes: null,
      })),
      hasChecksums: false,
      userDataBytes: null,
      contents,
      [Symbol.dispose]: () => closeContents(contents),
    };
  } catch (error) {
    closeContents(contents);
    throw error;
  }
}

/** Each extent is a raw frame of one content. */
function rawPageMap(
  extents: {
    readonly start: Uint32Array;
    readonly length: Uint32Array;
    readonly fileOffset: Float64Array;
  },
  content: number,
): PageMap {
  const { start, length, fileOffset } = extents;
  return {
    extents: { start, length, frame: start.map((_, i) => i), framePage: start.map(() => 0) },
    frames: {
      content: start.map(() => content),
      codec: start.map(() => CodecId.Raw),
      offset: fileOffset,
      storedBytes: Float64Array.from(length, (pages) => pages * PAGE_BYTES),
      pages: length,
    },
  };
}

/** The file name of a content. */
export function nameOfContent(contents: readonly (OpenContent | null)[], index: number): string {
  const content = contents[index];
  return content === null || content === undefined ? `content ${index}` : basename(content.path);
}
