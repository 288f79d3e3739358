/** What a MemoryFile is made of, newly created or opened from another thread's handle. */
import { checkInteger } from "../ffi/index.ts";
import { Allocator } from "./allocator/allocator.ts";
import type { TableMemory } from "./allocator/tables.ts";
import { DestroyedError } from "./errors.ts";
import { Mapping } from "./mapping/mapping.ts";
import { checkEviction, type MemoryFileHandle, type MemoryFileOptions } from "./options.ts";
import { type Control, createControl, Field, openControl, Word } from "./shared/control.ts";
import { CHUNK_SIZE, PAGE_SIZE } from "./units.ts";

/** Address space that a file reserves unless `limitBytes` asks for more. Reserved is not used: it costs nothing. */
const DEFAULT_CAPACITY_BYTES = 256 * CHUNK_SIZE;
const MAX_CAPACITY_BYTES = 1024 * CHUNK_SIZE;

export interface Parts {
  readonly control: Control;
  readonly name: string;
  readonly mapping: Mapping;
  readonly tables: TableMemory;
}

/** Bits of Field.Flags. */
export const Flag = {
  ExpectHugepages: 1,
  AdviseHugepage: 2,
  AdviseNoHugepage: 4,
  OnDisk: 8,
  EvictsAtOnce: 16,
  EvictsManually: 32,
} as const;

/** How a file is named in messages. */
export function describe(name: string): string {
  return `MemoryFile "${name}"`;
}

export function createParts(options: MemoryFileOptions): Parts {
  const { limitBytes } = options;
  if (limitBytes !== undefined) {
    checkInteger("limitBytes", limitBytes, PAGE_SIZE, MAX_CAPACITY_BYTES);
    if (limitBytes % PAGE_SIZE !== 0)
      throw new RangeError(`Expected limitBytes to be a multiple of ${PAGE_SIZE}, got ${limitBytes}`);
  }
  const name = options.name ?? "pgalloc";
  if (typeof name !== "string") throw new TypeError(`Expected name to be a string, got ${typeof name}`);
  // Twice the limit: fragmentation and chunks of both page sizes need room beyond what is in use.
  const wanted = Math.max(DEFAULT_CAPACITY_BYTES, 2 * (limitBytes ?? 0));
  const capacityBytes = Math.min(MAX_CAPACITY_BYTES, Math.ceil(wanted / CHUNK_SIZE) * CHUNK_SIZE);
  const { delayedEviction, threshold } = checkEviction(options);
  const mapping = Mapping.create(capacityBytes, {
    name,
    path: options.path,
    adviseHugepage: options.adviseHugepage ?? false,
    adviseNoHugepage: options.adviseNoHugepage ?? false,
  });
  const tables = Allocator.createTables(capacityBytes / PAGE_SIZE);
  const control = createControl();
  const { fields } = control;
  fields[Field.BaseAddress] = mapping.base;
  fields[Field.TableAddress] = tables.address;
  fields[Field.CapacityPages] = capacityBytes / PAGE_SIZE;
  fields[Field.LimitPages] = (limitBytes ?? capacityBytes) / PAGE_SIZE;
  fields[Field.Fd] = mapping.fd;
  fields[Field.Flags] =
    (options.expectHugepages === true ? Flag.ExpectHugepages : 0) |
    (options.adviseHugepage === true ? Flag.AdviseHugepage : 0) |
    (options.adviseNoHugepage === true ? Flag.AdviseNoHugepage : 0) |
    (options.path === undefined ? 0 : Flag.OnDisk) |
    (delayedEviction === "disabled" ? Flag.EvictsAtOnce : 0) |
    (delayedEviction === "manual" ? Flag.EvictsManually : 0);
  control.words[Word.PressureStallMs] = threshold.stallMs;
  control.words[Word.PressureWindowMs] = threshold.windowMs;
  return { control, name, mapping, tables };
}

/** @throws {TypeError} if it is no handle @throws {DestroyedError} */
export function attachParts(handle: MemoryFileHandle): Parts {
  if (handle === null || typeof handle !== "object" || handle.kind !== "pgalloc.MemoryFile") {
    throw new TypeError("Expected a handle made by MemoryFile.share()");
  }
  const control = openControl(handle.control);
  if (Atomics.load(control.words, Word.Destroyed) !== 0) throw new DestroyedError(describe(handle.name), "MemoryFile.attach()");
  const { fields } = control;
  const flags = fields[Field.Flags]!;
  const capacityPages = fields[Field.CapacityPages]!;
  const mapping = new Mapping(fields[Field.Fd]!, fields[Field.BaseAddress]!, capacityPages * PAGE_SIZE, {
    adviseHugepage: (flags & Flag.AdviseHugepage) !== 0,
    adviseNoHugepage: (flags & Flag.AdviseNoHugepage) !== 0,
  });
  return { control, name: handle.name, mapping, tables: Allocator.attachTables(fields[Field.TableAddress]!, capacityPages) };
}
