/**
 * The expected state of a restored gVisor checkpoint, in the form of the fixtures' expected.json,
 * compared with a MemoryFile through its public methods.
 */
import { expect } from "bun:test";
import {
  CHUNK_SIZE,
  FileRange,
  HUGE_PAGE_SIZE,
  type MemoryFile,
  PAGE_SIZE,
} from "../../src/index.ts";

export interface LiveRange {
  readonly start: number;
  readonly end: number;
  readonly refs: number;
  readonly kind: number;
  readonly group: number;
  readonly huge: boolean;
}

export interface Expected {
  /** Pages that are stamped with `index`; all other live pages are zero. */
  readonly filled: readonly { readonly offset: number; readonly index: number }[];
  readonly live: readonly LiveRange[];
  readonly totalSize: number;
}

/**
 * Puts the stamp of `index` into a page: the word at byte o is index × 0x9E3779B97F4A7C15 + o,
 * modulo 2^64.
 */
export function stampPage(page: Uint8Array, index: number): void {
  const words = new BigUint64Array(page.buffer, page.byteOffset, PAGE_SIZE / 8);
  const first = BigInt(index) * 0x9e3779b97f4a7c15n;
  for (let i = 0; i < words.length; i++) words[i] = first + BigInt(8 * i);
}

/** Pages of the file with references; equal neighbours are joined. */
export function liveRanges(file: MemoryFile): LiveRange[] {
  const ranges: LiveRange[] = [];
  for (const line of file.dump().split("\n")) {
    const match = /^\[(\d+), (\d+)\) (huge )?used refs=(\d+) kind=(\d+) group=(\d+)$/.exec(line);
    if (match === null) continue;
    const [start, end, , refs, kind, group] = match.slice(1).map(Number) as [
      number,
      number,
      number,
      number,
      number,
      number,
    ];
    ranges.push({ start, end, refs, kind, group, huge: match[3] !== undefined });
  }
  return joined(ranges);
}

export function joined(ranges: readonly LiveRange[]): LiveRange[] {
  const result: LiveRange[] = [];
  for (const range of [...ranges].sort((a, b) => a.start - b.start)) {
    const last = result.at(-1);
    const isSame =
      last?.end === range.start &&
      last.refs === range.refs &&
      last.kind === range.kind &&
      last.group === range.group &&
      last.huge === range.huge;
    if (isSame) result[result.length - 1] = { ...last, end: range.end };
    else result.push(range);
  }
  return result;
}

/** Checks size, references, kinds, groups and page sizes, and that nothing else is in use. */
export function checkRanges(file: MemoryFile, expected: Expected): void {
  expect(file.totalSizeBytes).toBe(expected.totalSize);
  const bytes = expected.live.reduce((sum, { start, end }) => sum + end - start, 0);
  expect(file.allocatedBytes).toBe(bytes);
  expect(liveRanges(file)).toEqual(joined(expected.live));
}

/** Checks every byte of every live page. Returns how many pages it checked. */
export function checkContents(file: MemoryFile, expected: Expected): number {
  const indexes = new Map(expected.filled.map(({ offset, index }) => [offset, index]));
  const want = new Uint8Array(PAGE_SIZE);
  let pages = 0;
  for (const live of expected.live) {
    let offset = live.start;
    for (const view of file.views(live)) {
      for (let at = 0; at < view.byteLength; at += PAGE_SIZE, offset += PAGE_SIZE) {
        const index = indexes.get(offset);
        if (index === undefined) want.fill(0);
        else stampPage(want, index);
        if (Buffer.compare(view.subarray(at, at + PAGE_SIZE), want) !== 0) {
          throw new Error(
            `The page at ${offset} is not ` +
              `${index === undefined ? "zero" : `stamped with ${index}`}`,
          );
        }
        pages++;
        indexes.delete(offset);
      }
    }
  }
  expect([...indexes]).toEqual([]);
  return pages;
}

/**
 * Drops every reference, and checks sharing on the way. Afterwards nothing is in use, and every
 * chunk is free as a whole.
 */
export async function checkDrop(file: MemoryFile, expected: Expected): Promise<void> {
  for (const { start, end, refs, huge } of expected.live.flatMap(cutAtHugePages)) {
    const range = new FileRange(start, end);
    for (let left = refs; left > 0; left--) {
      // For large counts: the first few and the last few.
      if (left < refs && left > 3) {
        file.decRef(range);
        continue;
      }
      expect(file.hasUniqueRef(range)).toBe(left === 1);
      expect(`${file.firstSharedRange(range)}`).toBe(left === 1 ? "null" : `${range}`);
      file.decRef(range);
    }
    if (huge) await file.released();
  }
  await file.released();
  expect(file.allocatedBytes).toBe(0);
  expect(file.totalUsageBytes).toBe(0);
  for (const line of file.dump().split("\n")) expect(line).toMatch(/^$| free$/);
  for (const { start, end, huge } of chunkRows(file)) {
    expect(`${file.allocate(end - start, { huge })}`).toBe(`[${start}, ${end})`);
  }
  expect(file.totalSizeBytes).toBe(expected.totalSize);
}

/**
 * The range in pieces, of which only the inner one spans huge pages. gVisor (and so MemoryFile)
 * loses count of the pages at the ragged ends of a release that spans several, so each must be
 * released alone for its huge page to be freed.
 */
function cutAtHugePages(range: LiveRange): LiveRange[] {
  if (!range.huge) return [range];
  const first = Math.min(range.end, Math.ceil(range.start / HUGE_PAGE_SIZE) * HUGE_PAGE_SIZE);
  const last = Math.max(first, Math.floor(range.end / HUGE_PAGE_SIZE) * HUGE_PAGE_SIZE);
  return [
    { ...range, end: first },
    { ...range, start: first, end: last },
    { ...range, start: last },
  ].filter(({ start, end }) => start < end);
}

/** Rows of chunks of one page size, in a file that is all free. */
function chunkRows(file: MemoryFile): { start: number; end: number; huge: boolean }[] {
  return [...file.dump().matchAll(/^\[(\d+), (\d+)\) (huge )?free$/gm)].map(
    ([, start, end, huge]) => {
      expect(Number(start) % CHUNK_SIZE).toBe(0);
      return { start: Number(start), end: Number(end), huge: huge !== undefined };
    },
  );
}

/**
 * The file's runs as text, equal for files with equal contents: sub-released pages are joined, and
 * whole huge pages of them are free.
 */
export function comparableText(file: { dump(): string }): string {
  const text = file
    .dump()
    .replace(/, (\d+)\) huge sub-released\n\[\1(?=, \d+\) huge sub-released)/g, "");
  const lines = text.split("\n").flatMap((line) => {
    const match = /^\[(\d+), (\d+)\) huge (sub-released|free)$/.exec(line);
    if (match === null) return [line];
    const [start, end] = [Number(match[1]), Number(match[2])];
    const first = Math.ceil(start / HUGE_PAGE_SIZE) * HUGE_PAGE_SIZE;
    const last = Math.floor(end / HUGE_PAGE_SIZE) * HUGE_PAGE_SIZE;
    if (first >= last) return [line];
    return [
      start < first ? `[${start}, ${first}) huge sub-released` : [],
      `[${first}, ${last}) huge free`,
      last < end ? `[${last}, ${end}) huge sub-released` : [],
    ].flat();
  });
  return lines.join("\n").replace(/, (\d+)\) huge free\n\[\1(?=, \d+\) huge free)/g, "");
}
