/**
 * Reads a `meta` file's bytes into columns and believes none of them: every count, offset, page and reference is checked
 * against the file's size and against the others before anybody maps or writes a byte of memory. Memory is bounded by
 * the file's own size, since columns are views of it.
 */
import { SUB_RELEASED, USED } from "../allocator/states.ts";
import { MAX_KIND, PAGE_SIZE, PAGES_PER_CHUNK, PAGES_PER_HUGE_PAGE } from "../units.ts";
import { CorruptCheckpointError } from "../errors.ts";
import {
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

/** Finds a section by its id and owner, or undefined. */
type Sections = (id: number, owner: number) => Uint8Array | undefined;

/** `bytes` must begin at a multiple of 8 of its buffer. @throws {CorruptCheckpointError} */
export function decodeMeta(bytes: Uint8Array, path: string): CheckpointImage {
  const header = decodeHeader(bytes, path);
  const sections = decodeTable(bytes, header, path);
  const files: FileImage[] = [];
  const names = new Set<string>();
  for (let owner = 0; owner < header.fileCount; owner++) {
    const file = decodeFile(sections, owner, path);
    if (names.has(file.name)) throw corrupt(path, `There are two files ${JSON.stringify(file.name)}`, "name");
    names.add(file.name);
    files.push(file);
  }
  const checksums = columns(sections, Section.Checksums, WHOLE, 1, path)[0]!;
  if (checksums.length * header.pageSize !== header.pagesBytes) {
    throw corrupt(path, `${checksums.length} checksums do not match ${header.pagesBytes} bytes of pages`, "checksums");
  }
  let pages = 0;
  for (const file of files) {
    checkChunks(file, path);
    checkRuns(file, path);
    pages += checkExtents(file, path);
  }
  if (pages !== checksums.length) {
    throw corrupt(path, `Extents hold ${pages} pages, but there are ${checksums.length} checksums`, "extents");
  }
  const userData = sections(Section.UserData, WHOLE)?.slice() ?? null;
  return { id: header.id, pageSize: header.pageSize, files, checksums, userData };
}

function decodeFile(sections: Sections, owner: number, path: string): FileImage {
  const [start, length, state, refs, kind, group] = columns(sections, Section.Runs, owner, RUN_COLUMNS, path) as [
    Uint32Array,
    Uint32Array,
    Uint32Array,
    Uint32Array,
    Uint32Array,
    Uint32Array,
  ];
  const [extentStart, extentLength] = columns(sections, Section.Extents, owner, 2, path) as [Uint32Array, Uint32Array];
  return {
    name: decodeName(section(sections, Section.Name, owner, path), path),
    chunkHuge: section(sections, Section.Chunks, owner, path),
    runs: { start, length, state, refs, kind, group },
    extents: { start: extentStart, length: extentLength },
    userData: sections(Section.UserData, owner)?.slice() ?? null,
  };
}

function decodeName(bytes: Uint8Array, path: string): string {
  if (bytes.length === 0 || bytes.length > MAX_NAME_BYTES || bytes.includes(0)) {
    throw corrupt(path, `Expected a name of 1 to ${MAX_NAME_BYTES} bytes without NUL, got ${bytes.length} bytes`, "name");
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

function columns(sections: Sections, id: number, owner: number, count: number, path: string): Uint32Array[] {
  const bytes = section(sections, id, owner, path);
  const rows = bytes.byteLength / 4 / count;
  if (!Number.isInteger(rows))
    throw corrupt(path, `Expected ${count} columns, got ${bytes.byteLength} bytes`, SECTION_NAMES[id]);
  return Array.from({ length: count }, (_, i) => new Uint32Array(bytes.buffer, bytes.byteOffset + 4 * i * rows, rows));
}

interface Header {
  readonly id: bigint;
  readonly pageSize: number;
  readonly pagesBytes: number;
  readonly sectionCount: number;
  readonly fileCount: number;
}

function decodeHeader(bytes: Uint8Array, path: string): Header {
  if (bytes.byteLength < HEADER_BYTES) throw corrupt(path, `Expected at least ${HEADER_BYTES} bytes, got ${bytes.byteLength}`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getBigUint64(0, true) !== MAGIC) throw corrupt(path, "This is no pgalloc checkpoint", "header", 0);
  const version = view.getUint32(8, true);
  if (version !== VERSION) throw corrupt(path, `Expected format version ${VERSION}, got ${version}`, "header", 8);
  const pageSize = view.getUint32(12, true);
  if (pageSize !== PAGE_SIZE) throw corrupt(path, `Expected pages of ${PAGE_SIZE} bytes, got ${pageSize}`, "header", 12);
  if (view.getUint32(60, true) !== crc32(bytes.subarray(0, 60)))
    throw corrupt(path, "Header checksum does not match", "header", 60);
  const fileBytes = view.getFloat64(32, true);
  if (fileBytes !== bytes.byteLength) throw corrupt(path, `Expected ${fileBytes} bytes, got ${bytes.byteLength}`, "header", 32);
  const fileCount = view.getUint32(48, true);
  if (fileCount < 1 || fileCount > MAX_FILES) {
    throw corrupt(path, `Expected 1 to ${MAX_FILES} files, got ${fileCount}`, "header", 48);
  }
  const sectionCount = view.getUint32(40, true);
  const tableEnd = HEADER_BYTES + TABLE_ENTRY_BYTES * sectionCount;
  if (sectionCount > WIDEST_SECTIONS * (fileCount + 1) + UNKNOWN_SECTIONS || tableEnd > bytes.byteLength) {
    throw corrupt(path, `Section count ${sectionCount} is out of bounds`, "header", 40);
  }
  if (view.getUint32(44, true) !== crc32(bytes.subarray(HEADER_BYTES, tableEnd))) {
    throw corrupt(path, "Section table checksum does not match", "header", 44);
  }
  return { id: view.getBigUint64(16, true), pageSize, pagesBytes: view.getFloat64(24, true), sectionCount, fileCount };
}

/** Unknown sections are skipped: a later version may add some. */
function decodeTable(bytes: Uint8Array, { sectionCount, fileCount }: Header, path: string): Sections {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const sections = new Map<string, Uint8Array>();
  // Sections do not overlap, or a small file could ask for a thousand copies of its user data.
  let roomBytes = bytes.byteLength;
  for (let i = 0; i < sectionCount; i++) {
    const entry = HEADER_BYTES + TABLE_ENTRY_BYTES * i;
    const id = view.getUint32(entry, true);
    const offset = view.getFloat64(entry + 8, true);
    const length = view.getFloat64(entry + 16, true);
    const owner = view.getUint32(entry + 24, true);
    const name = SECTION_NAMES[id] ?? `${id}`;
    if (!Number.isSafeInteger(offset) || offset % 8 !== 0 || offset < HEADER_BYTES || offset > bytes.byteLength) {
      throw corrupt(path, `Offset ${offset} is out of bounds`, name, entry);
    }
    roomBytes -= length;
    if (!Number.isSafeInteger(length) || length < 0 || length > bytes.byteLength - offset || roomBytes < 0) {
      throw corrupt(path, `Length ${length} is out of bounds`, name, entry);
    }
    if (owner !== WHOLE && owner >= fileCount) throw corrupt(path, `Owner ${owner} is none of ${fileCount} files`, name, entry);
    const key = `${id}/${owner}`;
    if (sections.has(key)) throw corrupt(path, "Section stands twice", name, entry);
    const section = bytes.subarray(offset, offset + length);
    if (view.getUint32(entry + 4, true) !== crc32(section))
      throw corrupt(path, "Section checksum does not match", name, offset);
    sections.set(key, section);
  }
  return (id, owner) => sections.get(`${id}/${owner}`);
}

function checkChunks(image: FileImage, path: string): void {
  const { chunkHuge } = image;
  for (let chunk = 0; chunk < chunkHuge.length; chunk++) {
    if (chunkHuge[chunk]! > 1) throw corrupt(path, `Chunk ${chunk} is of unknown kind ${chunkHuge[chunk]}`, "chunks");
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
    if (chunkKindsDiffer(image.chunkHuge, start[i]!, end)) throw refuse(i, "spans chunks of both page sizes");
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
  if (refs[run] !== 0 || kind[run] !== 0 || group[run]! > 1 || image.chunkHuge[Math.floor(first / PAGES_PER_CHUNK)] !== 1) {
    return "is sub-released, but in use or in a chunk of small pages";
  }
  // Group 1 are pages that do not count towards freeing their huge page (allocator.ts), which may be all of one.
  if (group[run] === 0 && Math.ceil(first / PAGES_PER_HUGE_PAGE) < Math.floor(end / PAGES_PER_HUGE_PAGE)) {
    return "is sub-released, but holds a whole huge page";
  }
  return undefined;
}

function chunkKindsDiffer(chunkHuge: Uint8Array, start: number, end: number): boolean {
  const last = Math.floor((end - 1) / PAGES_PER_CHUNK);
  const first = Math.floor(start / PAGES_PER_CHUNK);
  for (let chunk = first + 1; chunk <= last; chunk++) if (chunkHuge[chunk] !== chunkHuge[first]) return true;
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
    for (let page = first; page < end; page = runEnd) {
      while (runEnd <= page && ++run < runs.start.length) {
        runEnd = runs.start[run]! + runs.length[run]!;
        usedStart = runs.state[run] === USED ? runs.start[run]! : Number.POSITIVE_INFINITY;
      }
      if (runEnd <= page || usedStart > page) throw refuse(i, `holds page ${page}, which nobody uses`);
    }
  }
  return pages;
}
