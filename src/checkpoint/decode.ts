/**
 * Decodes a manifest's bytes into columns and trusts none of them: every count, offset, page and
 * reference is checked against the file's size and against the others before a byte of memory is
 * mapped or written. Columns are views of the bytes, so memory is bounded by the bytes read.
 */
import { CorruptCheckpointError } from "../errors/errors.ts";
import {
  corrupt,
  type DecodedFile,
  EXTENT_COLUMNS,
  FRAME_BYTES,
  type FileImage,
  type Manifest,
  PAGE_FILE_BYTES,
  type PageFile,
  RUN_COLUMNS,
  SECTION_NAMES,
  Section,
  WHOLE,
} from "./format.ts";
import { decodeHeader, type Header, type Report } from "./header.ts";
import { encodeName, LIMITS } from "./limits.ts";
import { BLOCK_PAGES, type ColumnPlace, type PageMap } from "./page-map.ts";
import { AlreadyReported, Sections } from "./sections.ts";
import {
  checkChunks,
  checkExtents,
  checkExtentsAreUsed,
  checkFrames,
  checkRuns,
} from "./validate.ts";

/** A validated manifest. */
export type DecodedManifest = Manifest<DecodedFile>;

/**
 * The contents of one MemoryFile that can be checked, in a manifest that may have damage elsewhere.
 */
export interface CheckableFile {
  /** null: damaged. */
  readonly name: string | null;
  readonly pageMap: PageMap;
  readonly crcs: ColumnPlace;
  readonly hashes: ColumnPlace;
}

/** The readable parts of a manifest that may be damaged. */
export interface ExaminedManifest {
  /** null: there is no header. */
  readonly header: Header | null;
  /** null: it is damaged. */
  readonly manifest: DecodedManifest | null;
  /** Page files that the manifest names; none if that list is damaged. */
  readonly pageFiles: readonly PageFile[];
  readonly checkable: readonly CheckableFile[];
}

/**
 * Decodes a manifest. `bytes` has at least its eager part, and begins at a multiple of 8 in its
 * buffer. `sizeBytes` is the size of the whole manifest.
 * @throws {CorruptCheckpointError}
 */
export function decodeManifest(
  bytes: Uint8Array,
  sizeBytes: number,
  path: string,
): DecodedManifest {
  return examineManifest(bytes, sizeBytes, path, (problem) => {
    throw problem;
  }).manifest!;
}

/** As `decodeManifest`, but reports all problems and continues, unless `report` throws. */
export function examineManifest(
  bytes: Uint8Array,
  sizeBytes: number,
  path: string,
  report: Report,
): ExaminedManifest {
  return new Examination(bytes, path, report).run(sizeBytes);
}

class Examination {
  private readonly bytes: Uint8Array;
  private readonly path: string;
  private readonly report: Report;
  private isWhole = true;

  constructor(bytes: Uint8Array, path: string, report: Report) {
    this.bytes = bytes;
    this.path = path;
    this.report = (problem) => {
      this.isWhole = false;
      report(problem);
    };
  }

  run(sizeBytes: number): ExaminedManifest {
    const { bytes, path, report } = this;
    const header = this.attempt(() => decodeHeader(bytes, sizeBytes, path, report));
    if (header === null || bytes.byteLength < header.eagerBytes) {
      if (this.isWhole) report(corrupt(path, `The metadata is cut off at ${bytes.byteLength}`));
      return { header, manifest: null, pageFiles: [], checkable: [] };
    }
    const sections = new Sections(bytes, header, path, report);
    const pageFiles = this.attempt(() => decodePageFiles(sections, header, path));
    const files: (DecodedFile | null)[] = [];
    const checkable: CheckableFile[] = [];
    const names = new Set<string>();
    for (let owner = 0; owner < header.fileCount; owner++) {
      const name = this.attempt(() => decodeName(sections.require(Section.Name, owner), path));
      if (name !== null && names.has(name))
        report(corrupt(path, `There are two files ${JSON.stringify(name)}`, "name"));
      if (name !== null) names.add(name);
      const contents =
        pageFiles === null
          ? null
          : this.attempt(() => decodeContents(sections, owner, pageFiles, path));
      if (contents !== null) checkable.push({ name, ...contents });
      files.push(this.attempt(() => this.decodeFile(sections, owner, name, contents)));
    }
    const userData = this.attempt(() => ({ bytes: sections.find(Section.UserData, WHOLE) }));
    if (!this.isWhole) return { header, manifest: null, pageFiles: pageFiles ?? [], checkable };
    let userDataBytes = userData!.bytes?.byteLength ?? 0;
    for (const file of files) userDataBytes += file!.userData?.byteLength ?? 0;
    if (userDataBytes > LIMITS.userDataBytes)
      report(corrupt(path, `User data of ${userDataBytes} bytes is out of bounds`, "userData"));
    const manifest: DecodedManifest = {
      id: header.id,
      hashSeed: header.hashSeed,
      pageFiles: pageFiles!,
      files: files as DecodedFile[],
      userData: copyOf(userData!.bytes),
    };
    return { header, manifest, pageFiles: pageFiles!, checkable };
  }

  /** The result of a step; null if it found a problem. */
  private attempt<T>(step: () => T): T | null {
    try {
      return step();
    } catch (error) {
      if (error instanceof CorruptCheckpointError) this.report(error);
      else if (!(error instanceof AlreadyReported)) throw error;
      return null;
    }
  }

  private decodeFile(
    sections: Sections,
    owner: number,
    name: string | null,
    contents: Omit<CheckableFile, "name"> | null,
  ): DecodedFile | null {
    const { path } = this;
    const userData = this.attempt(() => ({ bytes: sections.find(Section.UserData, owner) }));
    const chunkHuge = this.attempt(() => {
      const chunkHuge = sections.require(Section.Chunks, owner);
      checkChunks({ chunkHuge }, path);
      return chunkHuge;
    });
    const runs = this.attempt(() => decodeRuns(sections, owner, path));
    if (chunkHuge !== null && runs !== null)
      this.attempt(() => checkRuns({ chunkHuge, runs }, path));
    if (name === null || userData === null || contents === null) return null;
    if (chunkHuge === null || runs === null) return null;
    const file = {
      ...contents,
      name,
      chunkHuge,
      runs,
      userData: copyOf(userData.bytes),
      contentPages: contents.crcs.count,
    };
    if (this.isWhole) checkExtentsAreUsed(file, path);
    return file;
  }
}

/**
 * A copy, because the program's bytes must neither keep the whole manifest in memory nor be in
 * shared memory.
 */
function copyOf(bytes: Uint8Array | undefined): Uint8Array | null {
  return bytes === undefined ? null : new Uint8Array(bytes);
}

function decodePageFiles(sections: Sections, { pageFileCount }: Header, path: string): PageFile[] {
  const bytes = sections.require(Section.PageFiles, WHOLE);
  if (bytes.byteLength !== pageFileCount * PAGE_FILE_BYTES)
    throw corrupt(path, `Expected ${pageFileCount} page files`, "pageFiles");
  const ids = new BigUint64Array(bytes.buffer, bytes.byteOffset, pageFileCount);
  const sizes = new Float64Array(bytes.buffer, bytes.byteOffset + ids.byteLength, pageFileCount);
  const known = new Set<bigint>();
  const pageFiles: PageFile[] = [];
  for (let i = 0; i < pageFileCount; i++) {
    const sizeBytes = sizes[i]!;
    if (!Number.isInteger(sizeBytes) || sizeBytes < 0 || sizeBytes > LIMITS.pageFileBytes)
      throw corrupt(path, `Page file ${i} of ${sizeBytes} bytes is out of bounds`, "pageFiles");
    const id = ids[i]!;
    if (known.has(id)) throw corrupt(path, "Two page files have the same id", "pageFiles");
    known.add(id);
    pageFiles.push({ id, sizeBytes });
  }
  return pageFiles;
}

function decodeName(bytes: Uint8Array, path: string): string {
  try {
    // Text decoders refuse shared memory, so this decodes a copy.
    const name = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes.slice());
    if (encodeName(name) !== undefined) return name;
  } catch (cause) {
    throw new CorruptCheckpointError("Expected a name in UTF-8", { path, section: "name", cause });
  }
  throw corrupt(
    path,
    `Expected a name of 1 to ${LIMITS.nameBytes} bytes without NUL, got ${bytes.length} bytes`,
    "name",
  );
}

type U32 = Uint32Array;

function decodeRuns(sections: Sections, owner: number, path: string): FileImage["runs"] {
  const bytes = sections.require(Section.Runs, owner);
  const columns = columnsOf(bytes, RUN_COLUMNS, Section.Runs, path);
  const [start, length, state, refs, kind, group] = columns as [U32, U32, U32, U32, U32, U32];
  return { start, length, state, refs, kind, group };
}

function decodeContents(
  sections: Sections,
  owner: number,
  pageFiles: readonly PageFile[],
  path: string,
): Omit<CheckableFile, "name"> {
  const columns = columnsOf(
    sections.require(Section.Extents, owner),
    EXTENT_COLUMNS,
    Section.Extents,
    path,
  );
  const [start, length, frame, framePage] = columns as [U32, U32, U32, U32];
  const pageMap: PageMap = {
    extents: { start, length, frame, framePage },
    frames: decodeFrames(sections.require(Section.Frames, owner), path),
  };
  checkFrames(pageMap, pageFiles, path);
  const pages = checkExtents(pageMap, path);
  return { pageMap, ...decodeColumns(sections, owner, pages, path) };
}

function decodeFrames(bytes: Uint8Array, path: string): PageMap["frames"] {
  const rows = bytes.byteLength / FRAME_BYTES;
  if (!Number.isInteger(rows))
    throw corrupt(path, `Expected rows of ${FRAME_BYTES} bytes, got ${bytes.byteLength}`, "frames");
  const { buffer, byteOffset } = bytes;
  const words = (column: number) =>
    new Uint32Array(buffer, byteOffset + (16 + 4 * column) * rows, rows);
  return {
    offset: new Float64Array(buffer, byteOffset, rows),
    storedBytes: new Float64Array(buffer, byteOffset + 8 * rows, rows),
    content: words(0),
    codec: words(1),
    pages: words(2),
  };
}

/** The places of the page columns. Their bytes are not read. */
function decodeColumns(
  sections: Sections,
  owner: number,
  pages: number,
  path: string,
): Pick<CheckableFile, "crcs" | "hashes"> {
  const bytes = sections.require(Section.ColumnCrcs, owner);
  const blocks = Math.ceil(pages / BLOCK_PAGES);
  if (bytes.byteLength !== 8 * blocks)
    throw corrupt(path, `Expected checksums of ${blocks} blocks`, "columnCrcs");
  const [crcBlocks, hashBlocks] = columnsOf(bytes, 2, Section.ColumnCrcs, path) as [U32, U32];
  const crcs = sections.requireColumn(Section.PageCrcs, owner, pages, 4);
  const hashes = sections.requireColumn(Section.PageHashes, owner, pages, 8);
  return {
    crcs: { offset: crcs.offset, count: pages, widthBytes: 4, blockCrcs: crcBlocks },
    hashes: { offset: hashes.offset, count: pages, widthBytes: 8, blockCrcs: hashBlocks },
  };
}

function columnsOf(bytes: Uint8Array, count: number, id: number, path: string): Uint32Array[] {
  const rows = bytes.byteLength / 4 / count;
  if (!Number.isInteger(rows))
    throw corrupt(
      path,
      `Expected ${count} columns, got ${bytes.byteLength} bytes`,
      SECTION_NAMES[id],
    );
  const columns: Uint32Array[] = [];
  for (let i = 0; i < count; i++)
    columns.push(new Uint32Array(bytes.buffer, bytes.byteOffset + 4 * i * rows, rows));
  return columns;
}
