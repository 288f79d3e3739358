/** The index: entries of 64 bytes, each with a number and its text. */
import { MemoryFile } from "pgalloc";

export const ENTRY_BYTES = 64;
const PIECE_BYTES = 2 ** 24;

export function entryOf(entry: number): string {
  return `entry ${entry} of the index`;
}

export async function fillIndex(directory: string, bytes: number): Promise<void> {
  using file = MemoryFile.create();
  const { start: first, end: last } = file.allocate(bytes);
  const encoder = new TextEncoder();
  for (let start = first; start < last; start += PIECE_BYTES) {
    const end = Math.min(last, start + PIECE_BYTES);
    const view = file.view({ start, end });
    for (let at = 0; at < view.length; at += ENTRY_BYTES)
      encoder.encodeInto(entryOf((start + at) / ENTRY_BYTES), view.subarray(at, at + ENTRY_BYTES));
  }
  await file.saveTo(directory);
}

/** Reads an entry. Precondition: it is in the index. */
export function readEntry(file: MemoryFile, entry: number): string {
  const start = entry * ENTRY_BYTES;
  const page = { start: start - (start % 4096), end: start - (start % 4096) + 4096 };
  const bytes = file.view(page).subarray(start % 4096, (start % 4096) + ENTRY_BYTES);
  return new TextDecoder().decode(bytes.subarray(0, bytes.indexOf(0)));
}
