/**
 * Reads a `meta` file's bytes into columns and believes none of them: every count, offset, page and reference is checked
 * against the file's size and against the others before anybody maps or writes a byte of memory. Memory is bounded by
 * the file's own size, since columns are views of it.
 */
import { SUB_RELEASED, USED } from "../allocator/states.ts";
import { MAX_KIND, PAGE_SIZE, PAGES_PER_CHUNK, PAGES_PER_HUGE_PAGE } from "../units.ts";
import {
  type CheckpointImage,
  corrupt,
  crc32,
  HEADER_BYTES,
  MAGIC,
  RUN_COLUMNS,
  SECTION_NAMES,
  Section,
  TABLE_ENTRY_BYTES,
  VERSION,
} from "./format.ts";

const MAX_SECTIONS = 64;

/** `bytes` must begin at a multiple of 8 of its buffer. @throws {CorruptCheckpointError} */
export function decodeMeta(bytes: Uint8Array, path: string): CheckpointImage {
  const header = decodeHeader(bytes, path);
  const sections = decodeTable(bytes, header.sectionCount, path);
  const column = (id: number): Uint8Array => {
    const found = sections.get(id);
    if (found === undefined) throw corrupt(path, `Section ${SECTION_NAMES[id]} is missing`);
    return found;
  };
  const words = (id: number, columns: number): Uint32Array[] => {
    const section = column(id);
    const rows = section.byteLength / 4 / columns;
    if (!Number.isInteger(rows))
      throw corrupt(path, `Expected ${columns} columns, got ${section.byteLength} bytes`, SECTION_NAMES[id]);
    return Array.from({ length: columns }, (_, i) => new Uint32Array(section.buffer, section.byteOffset + 4 * i * rows, rows));
  };
  const [start, length, state, refs, kind, group] = words(Section.Runs, RUN_COLUMNS) as [
    Uint32Array,
    Uint32Array,
    Uint32Array,
    Uint32Array,
    Uint32Array,
    Uint32Array,
  ];
  const [extentStart, extentLength] = words(Section.Extents, 2) as [Uint32Array, Uint32Array];
  const image: CheckpointImage = {
    id: header.id,
    pageSize: header.pageSize,
    chunkHuge: column(Section.Chunks),
    runs: { start, length, state, refs, kind, group },
    extents: { start: extentStart, length: extentLength },
    checksums: words(Section.Checksums, 1)[0]!,
    userData: sections.get(Section.UserData)?.slice() ?? null,
  };
  if (image.checksums.length * image.pageSize !== header.pagesBytes) {
    throw corrupt(path, `${image.checksums.length} checksums do not match ${header.pagesBytes} bytes of pages`, "checksums");
  }
  checkChunks(image, path);
  checkRuns(image, path);
  checkExtents(image, path);
  return image;
}

function decodeHeader(bytes: Uint8Array, path: string) {
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
  const sectionCount = view.getUint32(40, true);
  const tableEnd = HEADER_BYTES + TABLE_ENTRY_BYTES * sectionCount;
  if (sectionCount > MAX_SECTIONS || tableEnd > bytes.byteLength) {
    throw corrupt(path, `Section count ${sectionCount} is out of bounds`, "header", 40);
  }
  if (view.getUint32(44, true) !== crc32(bytes.subarray(HEADER_BYTES, tableEnd))) {
    throw corrupt(path, "Section table checksum does not match", "header", 44);
  }
  return { id: view.getBigUint64(16, true), pageSize, pagesBytes: view.getFloat64(24, true), sectionCount };
}

/** Unknown sections are skipped: a later version may add some. */
function decodeTable(bytes: Uint8Array, count: number, path: string): Map<number, Uint8Array> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const sections = new Map<number, Uint8Array>();
  for (let i = 0; i < count; i++) {
    const entry = HEADER_BYTES + TABLE_ENTRY_BYTES * i;
    const id = view.getUint32(entry, true);
    const offset = view.getFloat64(entry + 8, true);
    const length = view.getFloat64(entry + 16, true);
    const name = SECTION_NAMES[id] ?? `${id}`;
    if (!Number.isSafeInteger(offset) || offset % 8 !== 0 || offset < HEADER_BYTES || offset > bytes.byteLength) {
      throw corrupt(path, `Offset ${offset} is out of bounds`, name, entry);
    }
    if (!Number.isSafeInteger(length) || length < 0 || length > bytes.byteLength - offset) {
      throw corrupt(path, `Length ${length} is out of bounds`, name, entry);
    }
    if (sections.has(id)) throw corrupt(path, "Section stands twice", name, entry);
    const section = bytes.subarray(offset, offset + length);
    if (view.getUint32(entry + 4, true) !== crc32(section))
      throw corrupt(path, "Section checksum does not match", name, offset);
    sections.set(id, section);
  }
  return sections;
}

function checkChunks(image: CheckpointImage, path: string): void {
  const { chunkHuge } = image;
  for (let chunk = 0; chunk < chunkHuge.length; chunk++) {
    if (chunkHuge[chunk]! > 1) throw corrupt(path, `Chunk ${chunk} is of unknown kind ${chunkHuge[chunk]}`, "chunks");
  }
}

function checkRuns(image: CheckpointImage, path: string): void {
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

function mistakeOfSubReleased(image: CheckpointImage, run: number, end: number): string | undefined {
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

/** Extents are ordered, disjoint, lie in used runs, and add up to the pages file. */
function checkExtents(image: CheckpointImage, path: string): void {
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
  if (pages !== image.checksums.length) {
    throw corrupt(path, `Extents hold ${pages} pages, but there are ${image.checksums.length} checksums`, "extents");
  }
}
