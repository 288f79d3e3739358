/**
 * Reads a `meta` file's bytes into columns and believes none of them: every count, offset, page and reference is checked
 * against the file's size and against the others before anybody maps or writes a byte of memory. Memory is bounded by
 * the file's own size, since columns are views of it.
 */
import { SUB_RELEASED, USED } from "../allocator/states.ts";
import { MAX_KIND, PAGE_SIZE, PAGES_PER_CHUNK, PAGES_PER_HUGE_PAGE } from "../pages/units.ts";
import { CorruptCheckpointError } from "../errors/errors.ts";
import {
  align8,
  type CheckpointImage,
  corrupt,
  crc32,
  type FileImage,
  HEADER_BYTES,
  MAGIC,
  MAX_FILES,
  MAX_NAME_BYTES,
  RUN_COLUMNS,
  SECTION_NAMES,
  Section,
  TABLE_ENTRY_BYTES,
  VERSION,
  WHOLE,
} from "./format.ts";

/** The most sections that one owner has, and how many more are let pass, for later versions. */
const WIDEST_SECTIONS = 5;
const UNKNOWN_SECTIONS = 64;

/**
 * Is told what is wrong. When it throws, as in a load, decoding ends there; when it returns, decoding goes on where it can, and
 * what depends on the damaged part is missing.
 */
export type Report = (problem: CorruptCheckpointError) => void;

/** A MemoryFile that was read, with how many pages its extents hold. */
export interface DecodedFile extends FileImage {
  readonly contentPages: number;
}

/** A validated checkpoint. */
export interface DecodedCheckpoint extends CheckpointImage {
  readonly files: readonly DecodedFile[];
}

/** What can be known of a `meta` file. */
export interface ExaminedMeta {
  /** As the header says; null if there is no header. */
  readonly id: bigint | null;
  /** Null if anything is wrong with it. */
  readonly image: DecodedCheckpoint | null;
  /** Null if there are none, or they are damaged themselves. */
  readonly checksums: Uint32Array | null;
}

/** A damaged part is missing, which has been told already. */
class AlreadyTold extends Error {}

/** Finds a section by its id and owner; undefined if there is none. @throws {AlreadyTold} if it is damaged */
type Sections = (id: number, owner: number) => Uint8Array | undefined;

/** `bytes` must begin at a multiple of 8 of its buffer. @throws {CorruptCheckpointError} */
export function decodeMeta(bytes: Uint8Array, path: string): DecodedCheckpoint {
  return examineMeta(bytes, path, (problem) => {
    throw problem;
  }).image!;
}

/** As `decodeMeta`, but tells what is wrong: all of it, unless `report` throws. */
export function examineMeta(bytes: Uint8Array, path: string, report: Report): ExaminedMeta {
  let isWhole = true;
  const tell: Report = (problem) => {
    isWhole = false;
    report(problem);
  };
  /** The result of a step; null if it found something wrong. */
  const attempt = <T>(step: () => T): T | null => {
    try {
      return step();
    } catch (error) {
      if (error instanceof CorruptCheckpointError) tell(error);
      else if (!(error instanceof AlreadyTold)) throw error;
      return null;
    }
  };
  const header = attempt(() => decodeHeader(bytes, path, tell));
  if (header === null) return { id: null, image: null, checksums: null };
  const { id, pageSize, pagesBytes, fileCount } = header;
  const sections = decodeTable(bytes, header, path, tell);
  const files: FileImage[] = [];
  const names = new Set<string>();
  for (let owner = 0; owner < fileCount; owner++) {
    const file = attempt(() => decodeFile(sections, owner, path));
    if (file === null) continue;
    if (names.has(file.name))
      tell(corrupt(path, `There are two files ${JSON.stringify(file.name)}`, "name"));
    names.add(file.name);
    files.push(file);
  }
  const checksums = attempt(() => columns(sections, Section.Checksums, WHOLE, 1, path)[0]!);
  if (checksums !== null && checksums.length * pageSize !== pagesBytes) {
    tell(
      corrupt(
        path,
        `${checksums.length} checksums do not match ${pagesBytes} bytes of pages`,
        "checksums",
      ),
    );
  }
  const contentPages = files.map((file) => {
    attempt(() => checkChunks(file, path));
    attempt(() => checkRuns(file, path));
    return attempt(() => checkExtents(file, path)) ?? 0;
  });
  const pages = contentPages.reduce((sum, count) => sum + count, 0);
  if (isWhole && pages !== checksums!.length) {
    tell(
      corrupt(
        path,
        `Extents hold ${pages} pages, but there are ${checksums!.length} checksums`,
        "extents",
      ),
    );
  }
  const userData = attempt(() => sections(Section.UserData, WHOLE) ?? null);
  if (!isWhole) return { id, image: null, checksums };
  // Copies: what the program gets must not keep all of `meta` in memory, nor be in shared memory.
  const owned = files.map((file, i) => ({
    ...file,
    userData: file.userData?.slice() ?? null,
    contentPages: contentPages[i]!,
  }));
  const image = {
    id,
    pageSize,
    files: owned,
    checksums: checksums!,
    userData: userData?.slice() ?? null,
  };
  return { id, image, checksums };
}

function decodeFile(sections: Sections, owner: number, path: string): FileImage {
  const [start, length, state, refs, kind, group] = columns(
    sections,
    Section.Runs,
    owner,
    RUN_COLUMNS,
    path,
  ) as [Uint32Array, Uint32Array, Uint32Array, Uint32Array, Uint32Array, Uint32Array];
  const [extentStart, extentLength] = columns(sections, Section.Extents, owner, 2, path) as [
    Uint32Array,
    Uint32Array,
  ];
  return {
    name: decodeName(section(sections, Section.Name, owner, path), path),
    chunkHuge: section(sections, Section.Chunks, owner, path),
    runs: { start, length, state, refs, kind, group },
    extents: { start: extentStart, length: extentLength },
    userData: sections(Section.UserData, owner) ?? null,
  };
}

function decodeName(bytes: Uint8Array, path: string): string {
  if (bytes.length === 0 || bytes.length > MAX_NAME_BYTES || bytes.includes(0)) {
    throw corrupt(
      path,
      `Expected a name of 1 to ${MAX_NAME_BYTES} bytes without NUL, got ${bytes.length} bytes`,
      "name",
    );
  }
  try {
    // Of a copy: text decoders refuse shared memory.
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes.slice());
  } catch (cause) {
    throw new CorruptCheckpointError("Expected a name in UTF-8", { path, section: "name", cause });
  }
}

function section(sections: Sections, id: number, owner: number, path: string): Uint8Array {
  const found = sections(id, owner);
  if (found === undefined) throw corrupt(path, `Section ${SECTION_NAMES[id]} is missing`);
  return found;
}

function columns(
  sections: Sections,
  id: number,
  owner: number,
  count: number,
  path: string,
): Uint32Array[] {
  const bytes = section(sections, id, owner, path);
  const rows = bytes.byteLength / 4 / count;
  if (!Number.isInteger(rows))
    throw corrupt(
      path,
      `Expected ${count} columns, got ${bytes.byteLength} bytes`,
      SECTION_NAMES[id],
    );
  return Array.from(
    { length: count },
    (_, i) => new Uint32Array(bytes.buffer, bytes.byteOffset + 4 * i * rows, rows),
  );
}

interface Header {
  readonly id: bigint;
  readonly pageSize: number;
  readonly pagesBytes: number;
  readonly sectionCount: number;
  /** Where the section table ends. */
  readonly tableEnd: number;
  readonly fileCount: number;
}

/** Whether a file of `sizeBytes` is worth reading, by its first HEADER_BYTES. @throws {CorruptCheckpointError} */
export function checkHeader(header: Uint8Array, sizeBytes: number, path: string): void {
  decodeFields(header, sizeBytes, path, (problem) => {
    throw problem;
  });
}

function decodeHeader(bytes: Uint8Array, path: string, report: Report): Header {
  const header = decodeFields(bytes, bytes.byteLength, path, report);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(44, true) !== crc32(bytes.subarray(HEADER_BYTES, header.tableEnd))) {
    report(corrupt(path, "Section table checksum does not match", "header", 44));
  }
  return header;
}

/** The header of a file of `sizeBytes`; its first HEADER_BYTES are enough. */
function decodeFields(bytes: Uint8Array, sizeBytes: number, path: string, report: Report): Header {
  if (bytes.byteLength < HEADER_BYTES)
    throw corrupt(path, `Expected at least ${HEADER_BYTES} bytes, got ${bytes.byteLength}`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getBigUint64(0, true) !== MAGIC)
    throw corrupt(path, "This is no pgalloc checkpoint", "header", 0);
  const version = view.getUint32(8, true);
  if (version !== VERSION)
    throw corrupt(path, `Expected format version ${VERSION}, got ${version}`, "header", 8);
  const pageSize = view.getUint32(12, true);
  if (pageSize !== PAGE_SIZE)
    throw corrupt(path, `Expected pages of ${PAGE_SIZE} bytes, got ${pageSize}`, "header", 12);
  if (view.getUint32(60, true) !== crc32(bytes.subarray(0, 60)))
    report(corrupt(path, "Header checksum does not match", "header", 60));
  const fileBytes = view.getFloat64(32, true);
  if (fileBytes !== sizeBytes)
    report(corrupt(path, `Expected ${fileBytes} bytes, got ${sizeBytes}`, "header", 32));
  const fileCount = view.getUint32(48, true);
  if (fileCount < 1 || fileCount > MAX_FILES) {
    throw corrupt(path, `Expected 1 to ${MAX_FILES} files, got ${fileCount}`, "header", 48);
  }
  const sectionCount = view.getUint32(40, true);
  const tableEnd = HEADER_BYTES + TABLE_ENTRY_BYTES * sectionCount;
  if (sectionCount > WIDEST_SECTIONS * (fileCount + 1) + UNKNOWN_SECTIONS || tableEnd > sizeBytes) {
    throw corrupt(path, `Section count ${sectionCount} is out of bounds`, "header", 40);
  }
  const id = view.getBigUint64(16, true);
  return { id, pageSize, pagesBytes: view.getFloat64(24, true), sectionCount, tableEnd, fileCount };
}

/** Unknown sections are skipped: a later version may add some. */
function decodeTable(
  bytes: Uint8Array,
  { sectionCount, tableEnd, fileCount }: Header,
  path: string,
  report: Report,
): Sections {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  /** null: damaged. */
  const sections = new Map<string, Uint8Array | null>();
  const layout = new Layout(bytes, tableEnd);
  for (let i = 0; i < sectionCount; i++) {
    const entry = HEADER_BYTES + TABLE_ENTRY_BYTES * i;
    const id = view.getUint32(entry, true);
    const offset = view.getFloat64(entry + 8, true);
    const length = view.getFloat64(entry + 16, true);
    const owner = view.getUint32(entry + 24, true);
    const name = SECTION_NAMES[id] ?? `${id}`;
    const key = `${id}/${owner}`;
    const mistake =
      layout.mistakeOf(offset, length) ??
      (owner !== WHOLE && owner >= fileCount
        ? `Owner ${owner} is none of ${fileCount} files`
        : undefined) ??
      (sections.has(key) ? "Section stands twice" : undefined);
    if (mistake !== undefined) {
      report(corrupt(path, mistake, name, entry));
      sections.set(key, null);
      continue;
    }
    const section = bytes.subarray(offset, offset + length);
    const isGood = view.getUint32(entry + 4, true) === crc32(section);
    if (!isGood) report(corrupt(path, "Section checksum does not match", name, offset));
    sections.set(key, isGood ? section : null);
  }
  const stray = layout.mistakeAtEnd();
  if (stray !== undefined) report(corrupt(path, stray));
  return (id, owner) => {
    const section = sections.get(`${id}/${owner}`);
    if (section === null) throw new AlreadyTold();
    return section;
  };
}

/**
 * Where sections may stand: each at the first multiple of 8 behind the one before, zeros between, and nothing behind the last.
 * So every byte of the file is in a section, or known; and no two sections share one (a small file could else ask for a
 * thousand copies of its user data).
 */
class Layout {
  private readonly bytes: Uint8Array;
  /** Where the last section ends; undefined if that is not known. */
  private end: number | undefined;

  constructor(bytes: Uint8Array, tableEnd: number) {
    this.bytes = bytes;
    this.end = tableEnd;
  }

  mistakeOf(offset: number, length: number): string | undefined {
    const { end, bytes } = this;
    this.end = undefined;
    const first = end === undefined ? offset : align8(end);
    if (
      offset !== first ||
      !Number.isSafeInteger(offset) ||
      offset < HEADER_BYTES ||
      offset % 8 !== 0
    ) {
      return `Offset ${offset} is out of place`;
    }
    if (
      offset > bytes.byteLength ||
      !Number.isSafeInteger(length) ||
      length < 0 ||
      length > bytes.byteLength - offset
    ) {
      return `Bytes [${offset}, ${offset + length}) are out of bounds`;
    }
    this.end = offset + length;
    for (let at = end ?? offset; at < offset; at++) {
      if (bytes[at] !== 0) return `Byte ${at} between sections is ${bytes[at]}, not 0`;
    }
    return undefined;
  }

  mistakeAtEnd(): string | undefined {
    if (this.end === undefined || this.end === this.bytes.byteLength) return undefined;
    return `${this.bytes.byteLength - this.end} bytes stand behind the last section`;
  }
}

function checkChunks(image: FileImage, path: string): void {
  const { chunkHuge } = image;
  for (let chunk = 0; chunk < chunkHuge.length; chunk++) {
    if (chunkHuge[chunk]! > 1)
      throw corrupt(path, `Chunk ${chunk} is of unknown kind ${chunkHuge[chunk]}`, "chunks");
  }
}

function checkRuns(image: FileImage, path: string): void {
  const { start, length, state, refs, kind } = image.runs;
  const sizePages = image.chunkHuge.length * PAGES_PER_CHUNK;
  // Messages are made only for the run that needs one: a string for each of 100,000 runs costs more than all the checks.
  const refuse = (i: number, what: string) =>
    corrupt(path, `Run ${i} [${start[i]}, ${start[i]! + length[i]!}) ${what}`, "runs");
  let previousEnd = 0;
  for (let i = 0; i < start.length; i++) {
    const end = start[i]! + length[i]!;
    if (length[i] === 0 || start[i]! < previousEnd || end > sizePages) {
      throw refuse(i, `is empty, out of order or beyond ${sizePages} pages`);
    }
    previousEnd = end;
    if (chunkKindsDiffer(image.chunkHuge, start[i]!, end))
      throw refuse(i, "spans chunks of both page sizes");
    if (state[i] === USED) {
      if (refs[i] === 0 || refs[i]! >= 2 ** 31 || kind[i]! > MAX_KIND) {
        throw refuse(i, `has ${refs[i]} references and kind ${kind[i]}`);
      }
    } else if (state[i] === SUB_RELEASED) {
      const mistake = mistakeOfSubReleased(image, i, end);
      if (mistake !== undefined) throw refuse(i, mistake);
    } else {
      throw refuse(i, `is in unknown state ${state[i]}`);
    }
  }
}

function mistakeOfSubReleased(image: FileImage, run: number, end: number): string | undefined {
  const { start, refs, kind, group } = image.runs;
  const first = start[run]!;
  if (
    refs[run] !== 0 ||
    kind[run] !== 0 ||
    group[run]! > 1 ||
    image.chunkHuge[Math.floor(first / PAGES_PER_CHUNK)] !== 1
  ) {
    return "is sub-released, but in use or in a chunk of small pages";
  }
  // Group 1 are pages that do not count towards freeing their huge page (allocator.ts), which may be all of one.
  if (
    group[run] === 0 &&
    Math.ceil(first / PAGES_PER_HUGE_PAGE) < Math.floor(end / PAGES_PER_HUGE_PAGE)
  ) {
    return "is sub-released, but holds a whole huge page";
  }
  return undefined;
}

function chunkKindsDiffer(chunkHuge: Uint8Array, start: number, end: number): boolean {
  const last = Math.floor((end - 1) / PAGES_PER_CHUNK);
  const first = Math.floor(start / PAGES_PER_CHUNK);
  for (let chunk = first + 1; chunk <= last; chunk++)
    if (chunkHuge[chunk] !== chunkHuge[first]) return true;
  return false;
}

/** Extents are ordered, disjoint, and lie in used runs. Returns how many pages they hold. */
function checkExtents(image: FileImage, path: string): number {
  const { start, length } = image.extents;
  const { runs } = image;
  const refuse = (i: number, what: string) =>
    corrupt(path, `Extent ${i} [${start[i]}, ${start[i]! + length[i]!}) ${what}`, "extents");
  let pages = 0;
  let previousEnd = 0;
  let run = -1;
  // Of the current run: where it ends, and its first page, if it is used.
  let runEnd = 0;
  let usedStart = Number.POSITIVE_INFINITY;
  for (let i = 0; i < start.length; i++) {
    const first = start[i]!;
    const end = first + length[i]!;
    if (end === first || first < previousEnd) throw refuse(i, "is empty or out of order");
    previousEnd = end;
    pages += end - first;
    // In the same used run as the one before, as most are.
    if (usedStart <= first && end <= runEnd) continue;
    for (let page = first; page < end; page = runEnd) {
      while (runEnd <= page && ++run < runs.start.length) {
        runEnd = runs.start[run]! + runs.length[run]!;
        usedStart = runs.state[run] === USED ? runs.start[run]! : Number.POSITIVE_INFINITY;
      }
      if (runEnd <= page || usedStart > page)
        throw refuse(i, `holds page ${page}, which nobody uses`);
    }
  }
  return pages;
}
