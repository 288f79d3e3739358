/** The options of a new MemoryFile: checked, complete, and as flags of its control block. */
import { resolve } from "node:path";
import { bytesToReserve } from "../memory/address-space.ts";
import { checkBoolean, checkInteger, quote, showValue } from "../../ffi/index.ts";
import { DEFAULT_MODE } from "../checkpoint/directory-lock.ts";
import type { PressureThreshold } from "../eviction/pressure-file.ts";
import { CHUNK_SIZE, PAGE_SIZE } from "../pages/units.ts";
import {
  checkEviction,
  checkMode,
  type MemoryFileOptions,
  type Nullable,
  readOptions,
} from "./options.ts";

/** The most address space that a file reserves. It takes no memory until it is used. */
export const MAX_CAPACITY_BYTES = 1024 * CHUNK_SIZE;

/** Bits of Field.Flags. */
export const Flag = {
  ExpectHugepages: 1,
  AdviseHugepage: 2,
  AdviseNoHugepage: 4,
  OnDisk: 8,
  EvictsAtOnce: 16,
  EvictsManually: 32,
  Checks: 64,
} as const;

/** The longest name that memfd_create(2) accepts. */
const MAX_NAME_BYTES = 249;

/** @throws {TypeError} {RangeError} */
function checkName(name: unknown): asserts name is string {
  if (typeof name !== "string")
    throw new TypeError(`Expected name to be a string, got ${showValue(name)}`);
  if (name.includes("\0"))
    throw new TypeError(`Expected name to have no NUL character, got ${quote(name)}`);
  const bytes = Buffer.byteLength(name);
  if (bytes > MAX_NAME_BYTES)
    throw new RangeError(
      `Expected name to be at most ${MAX_NAME_BYTES} bytes of UTF-8, got ${bytes}: ${quote(name)}`,
    );
}

/**
 * The name, cut to the longest that a MemoryFile may have, because ids in a checkpoint may be
 * longer.
 */
export function cutName(name: string): string {
  const bytes = new TextEncoder().encode(name);
  if (bytes.length <= MAX_NAME_BYTES) return name;
  // A streaming decoder keeps back a character that is cut off.
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes.subarray(0, MAX_NAME_BYTES), {
    stream: true,
  });
}

/** @throws {TypeError} {RangeError} */
function checkPath(path: unknown): asserts path is string | undefined {
  if (path === undefined) return;
  if (typeof path !== "string")
    throw new TypeError(`Expected path to be a string, got ${showValue(path)}`);
  if (path === "" || path.includes("\0"))
    throw new TypeError(
      `Expected path to be a file name without NUL characters, got ${quote(path)}`,
    );
}

/** Twice the limit because of fragmentation, and one more chunk for the other page size. */
export function capacityFor(limitBytes: number | undefined, expectHugepages: boolean): number {
  if (limitBytes === undefined) return bytesToReserve();
  const chunks = Math.ceil((2 * limitBytes) / CHUNK_SIZE) + (expectHugepages ? 1 : 0);
  return Math.min(MAX_CAPACITY_BYTES, chunks * CHUNK_SIZE);
}

/** The options of a new file, complete. */
export interface CheckedOptions {
  readonly name: string;
  readonly limitBytes: number | undefined;
  readonly path: string | undefined;
  readonly mode: number;
  readonly expectHugepages: boolean;
  readonly adviseHugepage: boolean;
  readonly adviseNoHugepage: boolean;
  readonly flags: number;
  readonly threshold: PressureThreshold;
}

/**
 * Reads each option once, because a getter may return something else the next time.
 * @throws {TypeError} {RangeError}
 */
export function checkOptions(given: Nullable<MemoryFileOptions>): CheckedOptions {
  const options = readOptions(given);
  const { limitBytes, path, mode = DEFAULT_MODE, name = "pgalloc" } = options;
  const { checks = process.env["PGALLOC_CHECKS"] === "1" } = options;
  const { expectHugepages = false, adviseHugepage = false, adviseNoHugepage = false } = options;
  const switches = { checks, expectHugepages, adviseHugepage, adviseNoHugepage };
  for (const [name, value] of Object.entries(switches)) checkBoolean(name, value);
  const { delayedEviction, threshold } = checkEviction(options);
  if (limitBytes !== undefined) checkLimit(limitBytes);
  checkPath(path);
  checkMode(mode);
  checkName(name);
  const flags =
    (expectHugepages ? Flag.ExpectHugepages : 0) |
    (adviseHugepage ? Flag.AdviseHugepage : 0) |
    (adviseNoHugepage ? Flag.AdviseNoHugepage : 0) |
    (path === undefined ? 0 : Flag.OnDisk) |
    (delayedEviction === "disabled" ? Flag.EvictsAtOnce : 0) |
    (delayedEviction === "manual" ? Flag.EvictsManually : 0) |
    (checks ? Flag.Checks : 0);
  const advice = { expectHugepages, adviseHugepage, adviseNoHugepage };
  // Absolute, also in messages.
  const place = path === undefined ? undefined : resolve(path);
  return { name, limitBytes, path: place, mode, ...advice, flags, threshold };
}

/** @throws {TypeError} {RangeError} */
function checkLimit(limitBytes: number): void {
  checkInteger("limitBytes", limitBytes, PAGE_SIZE, MAX_CAPACITY_BYTES);
  if (limitBytes % PAGE_SIZE !== 0)
    throw new RangeError(`Expected limitBytes to be a multiple of ${PAGE_SIZE}, got ${limitBytes}`);
}
