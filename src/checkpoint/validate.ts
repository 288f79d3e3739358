/**
 * Checks of a decoded MemoryFile's columns against each other and against the page files. A load
 * maps and writes nothing before they pass, and a save runs them over its manifest before it
 * commits.
 */
import { SUB_RELEASED, USED } from "../allocator/states.ts";
import {
  MAX_KIND,
  PAGE_SIZE,
  PAGES_PER_CHUNK,
  PAGES_PER_HUGE_PAGE as PAGES_PER_UNIT,
} from "../pages/units.ts";
import { corrupt, type FileImage, type PageFile } from "./format.ts";
import { LIMITS } from "./limits.ts";
import { CodecId } from "../codec/codec.ts";
import type { PageMap } from "./page-map.ts";

/** @throws {CorruptCheckpointError} */
export function checkChunks({ chunkHuge }: Pick<FileImage, "chunkHuge">, path: string): void {
  for (let chunk = 0; chunk < chunkHuge.length; chunk++) {
    if (chunkHuge[chunk]! > 1)
      throw corrupt(path, `Chunk ${chunk} has unknown kind ${chunkHuge[chunk]}`, "chunks");
  }
}

type RunImage = Pick<FileImage, "chunkHuge" | "runs">;

/**
 * @throws {CorruptCheckpointError} unless runs are ordered, disjoint, and each is in a known state
 */
export function checkRuns(image: RunImage, path: string): void {
  const { start, length, state, refs, kind } = image.runs;
  const sizePages = image.chunkHuge.length * PAGES_PER_CHUNK;
  // Builds a message only for a run that fails: 100,000 strings cost more than all the checks.
  const refuse = (i: number, what: string) =>
    corrupt(path, `Run ${i} [${start[i]}, ${start[i]! + length[i]!}) ${what}`, "runs");
  let previousEnd = 0;
  for (let i = 0; i < start.length; i++) {
    const end = start[i]! + length[i]!;
    if (length[i] === 0 || start[i]! < previousEnd || end > sizePages)
      throw refuse(i, `is empty, out of order or beyond ${sizePages} pages`);
    previousEnd = end;
    if (chunkKindsDiffer(image.chunkHuge, start[i]!, end))
      throw refuse(i, "spans chunks of both page sizes");
    if (state[i] === USED) {
      if (refs[i] === 0 || refs[i]! >= 2 ** 31 || kind[i]! > MAX_KIND)
        throw refuse(i, `has ${refs[i]} references and kind ${kind[i]}`);
    } else if (state[i] === SUB_RELEASED) {
      const mistake = mistakeOfSubReleased(image, i, end);
      if (mistake !== undefined) throw refuse(i, mistake);
    } else {
      throw refuse(i, `has unknown state ${state[i]}`);
    }
  }
}

function mistakeOfSubReleased(image: RunImage, run: number, end: number): string | undefined {
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
  // Pages of group 1 do not count towards freeing their huge page (allocator/waste.ts). They may be
  // all pages of one.
  if (group[run] === 0 && Math.ceil(first / PAGES_PER_UNIT) < Math.floor(end / PAGES_PER_UNIT)) {
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

function isCompressed(codec: number, storedBytes: number, decodedBytes: number): boolean {
  const isSized = Number.isInteger(storedBytes) && storedBytes > 0 && storedBytes < decodedBytes;
  return isSized && codec !== CodecId.Raw && codec <= CodecId.Zstd;
}

/**
 * In a fresh process the loop runs interpreted, so a raw frame that follows another one takes few
 * steps, and no call.
 *
 * @throws {CorruptCheckpointError} unless frames are ordered, disjoint, and within the page files
 */
export function checkFrames(
  { frames }: PageMap,
  pageFiles: readonly PageFile[],
  path: string,
): void {
  const { content, codec, offset, storedBytes, pages } = frames;
  const refuse = (i: number, what: string) =>
    corrupt(path, `Frame ${i} of content ${content[i]} at ${offset[i]} ${what}`, "frames");
  const { framePages } = LIMITS;
  let current = 0;
  let sizeBytes = 0;
  let previousEnd = 0;
  for (let i = 0; i < content.length; i++) {
    if (content[i] !== current) {
      const pageFile = pageFiles[content[i]! - 1];
      if (pageFile === undefined) throw refuse(i, `is in none of ${pageFiles.length} page files`);
      sizeBytes = pageFile.sizeBytes;
      if (content[i]! < current) throw refuse(i, "is before a frame of a content after its own");
      current = content[i]!;
      previousEnd = 0;
    }
    const count = pages[i]!;
    if (count === 0 || count > framePages) throw refuse(i, `has ${count} pages`);
    const stored = storedBytes[i]!;
    const isRaw = codec[i] === CodecId.Raw && stored === count * PAGE_SIZE;
    if (!isRaw && !isCompressed(codec[i]!, stored, count * PAGE_SIZE))
      throw refuse(i, `of codec ${codec[i]} has ${stored} bytes`);
    const start = offset[i]!;
    const end = start + stored;
    // Compared so that NaN fails.
    const isNext = start === previousEnd || (start > previousEnd && start % PAGE_SIZE === 0);
    if (!isNext || !(end <= sizeBytes))
      throw refuse(i, `is out of order or beyond ${sizeBytes} bytes`);
    previousEnd = isRaw ? end : Math.ceil(end / PAGE_SIZE) * PAGE_SIZE;
  }
}

/**
 * Checks extents against frames. Returns how many pages they have. Extents are ordered and
 * disjoint, and each lies in one unit. All extents of a frame lie in the same unit and use its
 * pages in order, each page once. Each frame has at least one extent.
 *
 * In a fresh process the loop over 131,072 extents runs interpreted for the most part. So what
 * belongs to a frame is looked up when the frame changes, and an extent takes few steps.
 *
 * @throws {CorruptCheckpointError}
 */
export function checkExtents({ extents, frames }: PageMap, path: string): number {
  const { start, length, frame, framePage } = extents;
  const refuse = (i: number, what: string) =>
    corrupt(path, `Extent ${i} [${start[i]}, ${start[i]! + length[i]!}) ${what}`, "extents");
  const rows = frames.pages.length;
  // By frame: its unit's first page + the end of the frame's pages that extents have, which is at
  // least 1. 0: no extent has been in the frame, as in all frames behind `lastRow`.
  const taken = new Float64Array(rows);
  let lastRow = -1;
  let pages = 0;
  let previousEnd = 0;
  let framesSeen = 0;
  // Of the current frame: its row, its pages, the end of those that extents have, and its unit.
  let row = -1;
  let rowPages = 0;
  let used = 0;
  let unitStart = 0;
  for (let i = 0; i < start.length; i++) {
    const first = start[i]!;
    const count = length[i]!;
    const end = first + count;
    if (count === 0 || first < previousEnd) throw refuse(i, "is empty or out of order");
    previousEnd = end;
    pages += count;
    if (frame[i] !== row) {
      if (row >= 0) taken[row] = unitStart + used;
      row = frame[i]!;
      if (row >= rows) throw refuse(i, `is in frame ${row} of ${rows}`);
      rowPages = frames.pages[row]!;
      unitStart = first - (first % PAGES_PER_UNIT);
      const before = row > lastRow ? 0 : taken[row]!;
      if (before === 0) framesSeen++;
      used = before === 0 ? 0 : before - unitStart;
      if (before !== 0 && (used < 1 || used > PAGES_PER_UNIT))
        throw refuse(i, `is not in the unit of frame ${row}`);
      if (row > lastRow) lastRow = row;
    }
    if (end > unitStart + PAGES_PER_UNIT) throw refuse(i, `leaves the unit of frame ${row}`);
    const from = framePage[i]!;
    if (from < used || from + count > rowPages)
      throw refuse(i, `has pages [${from}, ${from + count}) of frame ${row}, which has others`);
    used = from + count;
  }
  if (framesSeen !== rows)
    throw corrupt(path, `${rows - framesSeen} frames have no extent`, "frames");
  return pages;
}

/**
 * Precondition: runs and extents are ordered.
 * @throws {CorruptCheckpointError} unless extents lie in used runs
 */
export function checkExtentsAreUsed(
  { runs, pageMap }: Pick<FileImage, "runs" | "pageMap">,
  path: string,
): void {
  const { start, length } = pageMap.extents;
  const isUsedAt = (run: number, page: number) =>
    run < runs.start.length && runs.state[run] === USED && runs.start[run]! <= page;
  let run = 0;
  for (let i = 0; i < start.length; ) {
    const first = start[i]!;
    while (run < runs.start.length && runs.start[run]! + runs.length[run]! <= first) run++;
    // Neighbouring used runs reach up to here. Most files have few such stretches.
    let usedEnd = first;
    for (; isUsedAt(run, usedEnd); run++) usedEnd = runs.start[run]! + runs.length[run]!;
    i = firstBeyond(pageMap.extents, i, usedEnd);
    if (i < start.length && start[i]! < Math.max(usedEnd, first + 1))
      throw corrupt(
        path,
        `Extent ${i} [${start[i]}, ${start[i]! + length[i]!}) has page ${usedEnd}, which is free`,
        "extents",
      );
  }
}

/** The first extent from `from` on that ends beyond `page`. */
function firstBeyond({ start, length }: PageMap["extents"], from: number, page: number): number {
  const isWithin = (i: number) => i < start.length && start[i]! + length[i]! <= page;
  let low = from;
  let step = 1;
  for (; isWithin(low + step - 1); step *= 2) low += step;
  // Extents below `low` are within, and the one at `low + step - 1` is not.
  while (step > 1) {
    step /= 2;
    if (isWithin(low + step - 1)) low += step;
  }
  return low;
}
