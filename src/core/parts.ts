/** The parts of a MemoryFile: newly created, or opened from another thread's handle. */
import { fileStatus, isMapped, showValue, SyscallError } from "../../ffi/index.ts";
import { Allocator } from "../allocator/allocator.ts";
import type { TableMemory } from "../allocator/tables.ts";
import { type Control, createControl, Field, openControl, Word } from "../control/control.ts";
import { hold, startSweeping, stopSweeping } from "../control/holdings.ts";
import { reach } from "../control/interleave.ts";
import { freeSlot, takeSlot } from "../control/participants.ts";
import { DestroyedError, OutOfMemoryError } from "../errors/errors.ts";
import { Mapping } from "../memory/mapping.ts";
import { CHUNK_SIZE, PAGE_SIZE } from "../pages/units.ts";
import { onReload } from "../threads/reload.ts";
import {
  type CheckedOptions,
  capacityFor,
  checkOptions,
  Flag,
  MAX_CAPACITY_BYTES,
} from "./check-options.ts";
import type { MemoryFileHandle, MemoryFileOptions, Nullable } from "./options.ts";

// A Worker may end without freeing its holdings. The main thread outlives it.
if (Bun.isMainThread) {
  startSweeping();
  onReload(stopSweeping);
}

export interface Parts {
  readonly control: Control;
  readonly name: string;
  readonly mapping: Mapping;
  readonly tables: TableMemory;
  /** This thread's slot among the file's participants. The memory stays mapped while it has one. */
  readonly slot: number;
  /** This thread's holding for a file that it made and has not shared; -1 if there is none. */
  readonly holding: number;
}

/** The name of a file in messages. */
export function describe(name: string): string {
  return `MemoryFile "${name}"`;
}

/**
 * Makes a file with room for at least `minChunks` chunks.
 *
 * @throws {TypeError} {RangeError} for a bad option, with nothing made
 * @throws {OutOfMemoryError} if the chunks are more than a file may have
 * @throws {PathInUseError} {NotMemoryError} {SyscallError} with nothing left open
 */
export function createParts(options: Nullable<MemoryFileOptions>, minChunks = 0): Parts {
  const checked = checkOptions(options);
  const { limitBytes, expectHugepages } = checked;
  const leastBytes = CHUNK_SIZE * Math.max(minChunks, expectHugepages ? 2 : 1);
  if (leastBytes > MAX_CAPACITY_BYTES)
    throw new OutOfMemoryError(leastBytes, limitBytes ?? MAX_CAPACITY_BYTES, 0);
  let capacityBytes = Math.max(leastBytes, capacityFor(limitBytes, expectHugepages));
  for (;;) {
    try {
      return makeParts(checked, capacityBytes);
    } catch (error) {
      const isFull = error instanceof SyscallError && error.code === "ENOMEM";
      if (!isFull || capacityBytes <= leastBytes) throw error;
      // If address space is limited (ulimit -v, ulimit -d), less is enough.
      capacityBytes = Math.max(leastBytes, Math.ceil(capacityBytes / 4 / CHUNK_SIZE) * CHUNK_SIZE);
    }
  }
}

/** @throws as `createParts` */
function makeParts(checked: CheckedOptions, capacityBytes: number): Parts {
  const mapping = Mapping.create({ ...checked, capacityBytes });
  try {
    return describeMapping(mapping, checked);
  } catch (error) {
    mapping.destroy(0);
    throw error;
  }
}

function describeMapping(mapping: Mapping, checked: CheckedOptions): Parts {
  const { capacityBytes, fd, base } = mapping;
  const { name, flags, threshold } = checked;
  const capacityPages = capacityBytes / PAGE_SIZE;
  const { inode } = fileStatus(fd);
  const tables = Allocator.createTables(capacityPages);
  const control = createControl();
  const { fields } = control;
  fields[Field.BaseAddress] = base;
  fields[Field.TableAddress] = tables.address;
  fields[Field.CapacityPages] = capacityPages;
  fields[Field.LimitPages] = (checked.limitBytes ?? capacityBytes) / PAGE_SIZE;
  fields[Field.Fd] = fd;
  fields[Field.Inode] = inode;
  fields[Field.FileId] = newFileId();
  fields[Field.Flags] = flags;
  control.words[Word.PressureStallMs] = threshold.stallMs;
  control.words[Word.PressureWindowMs] = threshold.windowMs;
  const tableBytes = Allocator.tableBytes(capacityPages);
  const memory = { address: base, lengthBytes: capacityBytes };
  const holding = hold({ fd, mapping: { ...memory, tableAddress: tables.address, tableBytes } });
  return { control, name, mapping, tables, slot: takeSlot(control.words), holding };
}

/**
 * 48 random bits, because threads make files without asking each other. No secret depends on them,
 * and the first use of `crypto` takes 0.1 ms.
 */
function newFileId(): number {
  return Math.floor(Math.random() * 2 ** 48);
}

/** The control block of a handle. @throws {TypeError} if it is not a handle of this process */
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
 * The parts of another thread's file. Takes the slot before it uses an address; only then does
 * Word.Destroyed say whether the memory is mapped (control/participants.ts).
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
    return { control, name, slot, holding: -1, ...attachMemory(control) };
  } catch (error) {
    freeSlot(control.words, slot);
    throw error;
  }
}

function requireLive(control: Control, name: string): void {
  if (Atomics.load(control.words, Word.Destroyed) !== 0)
    throw new DestroyedError(describe(name), "MemoryFile.attach()");
}

/** Opens the memory that a control block names. Asks the kernel whether a file made the block. */
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

/** The inode of an open file, or undefined if the descriptor is not open. */
function inodeOf(fd: number): number | undefined {
  if (!Number.isInteger(fd) || fd < 0 || fd >= 2 ** 31) return undefined;
  try {
    return fileStatus(fd).inode;
  } catch (error) {
    if (error instanceof SyscallError) return undefined;
    throw error;
  }
}
