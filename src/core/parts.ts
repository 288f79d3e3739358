/** What a MemoryFile is made of, newly created or opened from another thread's handle. */
import {
  checkInteger,
  fileStatus,
  isMapped,
  quote,
  showValue,
  SyscallError,
} from "../../ffi/index.ts";
import { Allocator } from "../allocator/allocator.ts";
import type { TableMemory } from "../allocator/tables.ts";
import { DestroyedError } from "../errors/errors.ts";
import type { PressureThreshold } from "../eviction/pressure-file.ts";
import { Mapping } from "../memory/mapping.ts";
import {
  checkEviction,
  type MemoryFileHandle,
  type MemoryFileOptions,
  type Nullable,
  readOptions,
} from "./options.ts";
import { type Control, createControl, Field, openControl, Word } from "../control/control.ts";
import { freeSlot, takeSlot } from "../control/participants.ts";
import { reach } from "../control/interleave.ts";
import { CHUNK_SIZE, PAGE_SIZE } from "../pages/units.ts";

/** Address space that a file reserves unless `limitBytes` asks for more. Reserved is not used: it costs nothing. */
const DEFAULT_CAPACITY_BYTES = 256 * CHUNK_SIZE;
const MAX_CAPACITY_BYTES = 1024 * CHUNK_SIZE;

export interface Parts {
  readonly control: Control;
  readonly name: string;
  readonly mapping: Mapping;
  readonly tables: TableMemory;
  /** This thread's among the file's participants: as long as it has it, the memory stays mapped. */
  readonly slot: number;
}

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

/** How a file is named in messages. */
export function describe(name: string): string {
  return `MemoryFile "${name}"`;
}

/** memfd_create(2) takes so many. */
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

/** The name, cut to what a MemoryFile's may be: ids in a checkpoint may be longer. */
export function cutName(name: string): string {
  let cut = name;
  while (Buffer.byteLength(cut) > MAX_NAME_BYTES) cut = [...cut].slice(0, -1).join("");
  return cut;
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

export function createParts(given: Nullable<MemoryFileOptions>): Parts {
  const options = readOptions(given);
  const {
    limitBytes,
    path,
    expectHugepages = false,
    adviseHugepage = false,
    adviseNoHugepage = false,
    checks = process.env["PGALLOC_CHECKS"] === "1",
  } = options;
  if (limitBytes !== undefined) {
    checkInteger("limitBytes", limitBytes, PAGE_SIZE, MAX_CAPACITY_BYTES);
    if (limitBytes % PAGE_SIZE !== 0)
      throw new RangeError(
        `Expected limitBytes to be a multiple of ${PAGE_SIZE}, got ${limitBytes}`,
      );
  }
  const name = options.name ?? "pgalloc";
  checkName(name);
  checkPath(path);
  // Twice the limit: fragmentation and chunks of both page sizes need room beyond what is in use.
  const wanted = Math.max(DEFAULT_CAPACITY_BYTES, 2 * (limitBytes ?? 0));
  const capacityBytes = Math.min(MAX_CAPACITY_BYTES, Math.ceil(wanted / CHUNK_SIZE) * CHUNK_SIZE);
  const eviction = checkEviction(options);
  const flags =
    (expectHugepages === true ? Flag.ExpectHugepages : 0) |
    (adviseHugepage === true ? Flag.AdviseHugepage : 0) |
    (adviseNoHugepage === true ? Flag.AdviseNoHugepage : 0) |
    (path === undefined ? 0 : Flag.OnDisk) |
    (eviction.delayedEviction === "disabled" ? Flag.EvictsAtOnce : 0) |
    (eviction.delayedEviction === "manual" ? Flag.EvictsManually : 0) |
    (checks ? Flag.Checks : 0);
  const mapping = Mapping.create(capacityBytes, { name, path, adviseHugepage, adviseNoHugepage });
  try {
    return describeMapping(mapping, {
      name,
      flags,
      limitBytes: limitBytes ?? capacityBytes,
      threshold: eviction.threshold,
    });
  } catch (error) {
    mapping.destroy(0);
    throw error;
  }
}

interface Description {
  readonly name: string;
  readonly flags: number;
  readonly limitBytes: number;
  readonly threshold: PressureThreshold;
}

function describeMapping(
  mapping: Mapping,
  { name, flags, limitBytes, threshold }: Description,
): Parts {
  const { capacityBytes } = mapping;
  const { inode } = fileStatus(mapping.fd);
  // What can fail comes before this, which somebody would have to take back.
  const tables = Allocator.createTables(capacityBytes / PAGE_SIZE);
  const control = createControl();
  const { fields } = control;
  fields[Field.BaseAddress] = mapping.base;
  fields[Field.TableAddress] = tables.address;
  fields[Field.CapacityPages] = capacityBytes / PAGE_SIZE;
  fields[Field.LimitPages] = limitBytes / PAGE_SIZE;
  fields[Field.Fd] = mapping.fd;
  fields[Field.Inode] = inode;
  fields[Field.FileId] = newFileId();
  fields[Field.Flags] = flags;
  control.words[Word.PressureStallMs] = threshold.stallMs;
  control.words[Word.PressureWindowMs] = threshold.windowMs;
  return { control, name, mapping, tables, slot: takeSlot(control.words) };
}

/** 48 random bits: threads make files without asking each other. */
function newFileId(): number {
  const [high, low] = crypto.getRandomValues(new Uint32Array(2));
  return (high! & 0xffff) * 2 ** 32 + low!;
}

/** The control block behind a handle. @throws {TypeError} if it is no handle of this process */
export function controlOf(handle: MemoryFileHandle): Control {
  if (handle === null || typeof handle !== "object" || handle.kind !== "pgalloc.MemoryFile") {
    throw new TypeError(
      `Expected a handle made by MemoryFile.share() in this process, got ${showValue(handle)}`,
    );
  }
  if (typeof handle.name !== "string")
    throw new TypeError(`Expected handle.name to be a string, got ${showValue(handle.name)}`);
  const { userData } = handle;
  if (userData !== null && !(userData instanceof Uint8Array))
    throw new TypeError(
      `Expected handle.userData to be null or a Uint8Array, got ${showValue(userData)}`,
    );
  return openControl(handle.control);
}

/**
 * What a file of another thread is made of. The slot is taken before an address is looked at, and only then does the word
 * Destroyed tell whether the memory is there (shared/participants.ts).
 *
 * @throws {TypeError} if no file of this process can have made the handle
 * @throws {DestroyedError} {TooManyThreadsError}
 */
export function attachParts(control: Control, name: string): Parts {
  requireLive(control, name);
  reach("attach: looked at Destroyed");
  const slot = takeSlot(control.words);
  try {
    reach("attach: took a slot");
    requireLive(control, name);
    return { control, name, slot, ...attachMemory(control) };
  } catch (error) {
    freeSlot(control.words, slot);
    throw error;
  }
}

function requireLive(control: Control, name: string): void {
  if (Atomics.load(control.words, Word.Destroyed) !== 0)
    throw new DestroyedError(describe(name), "MemoryFile.attach()");
}

/** Opens the memory that a control block names. Checks with the kernel that a file made the block. */
export function attachMemory({ fields }: Control): Pick<Parts, "mapping" | "tables"> {
  const flags = fields[Field.Flags]!;
  const capacityPages = fields[Field.CapacityPages]!;
  const fd = fields[Field.Fd]!;
  const base = fields[Field.BaseAddress]!;
  const address = fields[Field.TableAddress]!;
  const capacityBytes = capacityPages * PAGE_SIZE;
  const isFile =
    Number.isInteger(capacityPages) &&
    capacityBytes > 0 &&
    capacityBytes <= MAX_CAPACITY_BYTES &&
    inodeOf(fd) === fields[Field.Inode] &&
    isMapped(base, capacityBytes) &&
    isMapped(address, Allocator.tableBytes(capacityPages));
  if (!isFile)
    throw new TypeError(
      "Expected a handle whose memory is mapped in this process, got one that no file of it made",
    );
  const mapping = new Mapping(fd, base, capacityBytes, {
    adviseHugepage: (flags & Flag.AdviseHugepage) !== 0,
    adviseNoHugepage: (flags & Flag.AdviseNoHugepage) !== 0,
  });
  return { mapping, tables: Allocator.attachTables(address, capacityPages) };
}

/** The inode behind a descriptor, or undefined if it is none. */
function inodeOf(fd: number): number | undefined {
  if (!Number.isInteger(fd) || fd < 0 || fd >= 2 ** 31) return undefined;
  try {
    return fileStatus(fd).inode;
  } catch (error) {
    if (error instanceof SyscallError) return undefined;
    throw error;
  }
}
