/**
 * The limits of a checkpoint. The reader refuses more; the writer checks the same numbers before it
 * changes anything, so a save that resolves can be loaded. test/checkpoint/limits.test.ts runs both
 * sides over this table.
 */
import { HUGE_PAGE_SIZE, PAGE_SIZE } from "../pages/units.ts";

export const LIMITS = {
  /** MemoryFiles. */
  files: 4096,
  /** A MemoryFile's name, in bytes of UTF-8. */
  nameBytes: 255,
  /** User data of the checkpoint and of all its MemoryFiles together. */
  userDataBytes: 2 ** 30,
  /** Header, table and sections: what opening a checkpoint reads. */
  eagerBytes: 2 ** 31,
  /** The whole manifest, with the columns that are read on first use. */
  manifestBytes: 2 ** 36,
  /** Page files that a checkpoint uses; a save stays at MAX_PAGE_FILES of save/compaction.ts. */
  pageFiles: 1024,
  /** Contents of a page file. */
  pageFileBytes: 2 ** 45,
  /** Pages of a frame: those of a unit. */
  framePages: HUGE_PAGE_SIZE / PAGE_SIZE,
} as const;

export type LimitName = keyof typeof LIMITS;

/** @throws {RangeError} naming the value that exceeds the limit */
export function checkLimit(name: LimitName, what: string, value: number): void {
  if (value <= LIMITS[name]) return;
  throw new RangeError(`Expected ${what} to be at most ${LIMITS[name]}, got ${value}`);
}

const encoder = new TextEncoder();

/** The bytes of a MemoryFile's name; undefined if no checkpoint can hold it. */
export function encodeName(name: string): Uint8Array | undefined {
  if (!name.isWellFormed() || name.includes("\0")) return undefined;
  const bytes = encoder.encode(name);
  return bytes.length >= 1 && bytes.length <= LIMITS.nameBytes ? bytes : undefined;
}
