/** The stamped memory image of the whole-job benches, and the hash of its contents. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { type FileRange, type MemoryFile, PAGE_SIZE } from "../../src/index.ts";
import { filledBytes, isZeroPage, type Pattern, stampPages } from "./trace.ts";

const PIECE_BYTES = 2 ** 26;

function* pieces(bytes: number): Generator<FileRange | { start: number; end: number }> {
  for (let start = 0; start < bytes; start += PIECE_BYTES)
    yield { start, end: Math.min(bytes, start + PIECE_BYTES) };
}

/** Stamps a new allocation of `bytes` at offset 0. Pages of zeros are not touched. */
export function fillImage(file: MemoryFile, pattern: Pattern, bytes: number): void {
  const range = file.allocate(bytes);
  if (range.start !== 0) throw new Error(`The first allocation is at ${range.start}, not at 0`);
  for (const piece of pieces(bytes))
    stampPages(file.view(piece, Uint32Array), piece.start / PAGE_SIZE, pattern);
}

/**
 * CRC-32 of the pages with contents, in order: equal to that of gVisor's pages.img of the image.
 * Every 64th page that must be zero is checked too; checking all of them would commit each.
 */
export function hashImage(file: MemoryFile, pattern: Pattern, bytes: number): string {
  let crc = 0;
  for (const piece of pieces(bytes)) {
    const view = file.view(piece);
    if (pattern === "dense") {
      crc = Bun.hash.crc32(view, crc);
      continue;
    }
    for (let at = 0; at < view.length; at += 4 * PAGE_SIZE) {
      crc = Bun.hash.crc32(view.subarray(at, Math.min(view.length, at + 3 * PAGE_SIZE)), crc);
      const zeroPage = (piece.start + at) / PAGE_SIZE + 3;
      if (zeroPage % 256 === 3 && at + 4 * PAGE_SIZE <= view.length)
        requireZero(view, at + 3 * PAGE_SIZE, zeroPage);
    }
  }
  return formatHash(crc, filledBytes(pattern, bytes));
}

function requireZero(view: Uint8Array, at: number, page: number): void {
  if (view.subarray(at, at + PAGE_SIZE).some((byte) => byte !== 0))
    throw new Error(`Page ${page} of the image is not zero`);
}

export function formatHash(crc: number, bytes: number): string {
  return `${crc.toString(16).padStart(8, "0")}-${bytes}`;
}

/** CRC-32 of a file's contents, as `hashImage`. */
export async function hashFile(path: string): Promise<string> {
  let crc = 0;
  let bytes = 0;
  for await (const chunk of Bun.file(path).stream()) {
    crc = Bun.hash.crc32(chunk, crc);
    bytes += chunk.length;
  }
  return formatHash(crc, bytes);
}

/** The page file of a checkpoint with only one. */
export function pageFileIn(directory: string): string {
  const name = readdirSync(directory).find((entry) => entry.startsWith("pages-"));
  if (name === undefined) throw new Error(`There is no page file in ${directory}`);
  return join(directory, name);
}

/** The page of an await: a random one, or its neighbour if that one has no contents. */
export function filledPage(pattern: Pattern, page: number): number {
  return isZeroPage(pattern, page) ? page - 1 : page;
}
