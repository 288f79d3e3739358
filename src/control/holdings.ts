/**
 * Holdings: resources of a thread that JavaScript does not show to other threads, such as files
 * that it never shared, and descriptors. A Worker may end at any point. Another thread of the
 * process then frees its holdings.
 *
 * The process has one table of records, in memory mapped at a fixed address, so any thread finds it
 * without a message from another one. A record is free (thread 0), owned by a living thread, or
 * left by a dead one. It changes owner by compare-exchange of the thread's word, so each record is
 * freed once. The main thread writes no records, because the process ends with it.
 */
import {
  addressOf,
  bufferAt,
  isUsable,
  closeFile,
  fileStatus,
  mapAnonymousAt,
  mapAnonymousOnce,
  O_RDONLY,
  openFile,
  readAt,
  SyscallError,
  unmap,
} from "../../ffi/index.ts";
import { assert } from "../errors/errors.ts";
import { isThreadAlive, nap, THREAD_ID } from "../threads/thread.ts";

/**
 * Linux places programs near the top of the address space or above its middle, and other mappings
 * from the top down. So these addresses are free at the start. The second one is for address spaces
 * of 39 bits. This module maps the table before the library reserves any memory.
 */
const ADDRESSES = [0x1067_6c00_1000, 0x32_6c00_1000];
/** Marks the table; contains the version of its layout. */
const MAGIC = 0x7067_6101;
const MAGIC_ATTEMPTS = 100;
const RECORDS = 4096;
const RECORD_BYTES = 64;
/** The magic number takes the place of the first record. */
const TABLE_BYTES = (1 + RECORDS) * RECORD_BYTES;

/** Indexes of a record's 32-bit words, and of its 64-bit floats. */
const RecordWord = { Thread: 0, IsComplete: 1 } as const;
const WORDS = RECORD_BYTES / 4;
const RecordField = { Fd: 1, Address: 2, LengthBytes: 3, TableAddress: 4, TableBytes: 5 } as const;
const FIELDS = RECORD_BYTES / 8;

/** The resources to free once their thread has ended. */
export interface Holding {
  readonly fd: number;
  /** Memory that the thread mapped from `fd`, and the tables beside it. */
  readonly mapping?: {
    readonly address: number;
    readonly lengthBytes: number;
    readonly tableAddress: number;
    readonly tableBytes: number;
  };
}

interface Table {
  readonly words: Int32Array;
  readonly fields: Float64Array;
}

let table: Table | undefined;

/** Maps the process's table, or finds it. Returns 0 if that is not possible. */
function findTable(): number {
  for (const address of ADDRESSES) {
    try {
      if (mapAnonymousOnce(address, TABLE_BYTES)) {
        Atomics.store(new Int32Array(bufferAt(address, 4)), 0, MAGIC);
        return address;
      }
      if (isTable(address)) return address;
    } catch (error) {
      if (!(error instanceof SyscallError)) throw error;
      // Without a table, a dead thread's holdings stay until the process ends.
    }
  }
  return 0;
}

/** True if a table is at `address`. Any memory may be there, so the kernel reads it for us. */
function isTable(address: number): boolean {
  const fd = openFile("/proc/self/mem", O_RDONLY);
  try {
    const magic = new Int32Array(new ArrayBuffer(4));
    for (let attempt = 0; attempt < MAGIC_ATTEMPTS; attempt++) {
      if (readAt(fd, addressOf(magic), 4, address) !== 4) return false;
      if (magic[0] !== 0) return magic[0] === MAGIC;
      // Another thread has mapped it and is about to write the magic number.
      nap(1);
    }
    return false;
  } finally {
    closeFile(fd);
  }
}

const tableAddress = isUsable ? findTable() : 0;

/** The process's table; undefined if there is none. */
function openTable(): Table | undefined {
  if (tableAddress === 0) return undefined;
  const buffer = bufferAt(tableAddress + RECORD_BYTES, TABLE_BYTES - RECORD_BYTES);
  return { words: new Int32Array(buffer), fields: new Float64Array(buffer) };
}

/** Records a holding of this thread. Returns the record for `letGo`, or -1 if there is none. */
export function hold({ fd, mapping }: Holding): number {
  if (Bun.isMainThread) return -1;
  table ??= openTable();
  if (table === undefined) return -1;
  const { words, fields } = table;
  for (let record = 0; record < RECORDS; record++) {
    const at = record * WORDS;
    if (Atomics.compareExchange(words, at + RecordWord.Thread, 0, THREAD_ID) !== 0) continue;
    const field = record * FIELDS;
    fields[field + RecordField.Fd] = fd;
    fields[field + RecordField.Address] = mapping?.address ?? 0;
    fields[field + RecordField.LengthBytes] = mapping?.lengthBytes ?? 0;
    fields[field + RecordField.TableAddress] = mapping?.tableAddress ?? 0;
    fields[field + RecordField.TableBytes] = mapping?.tableBytes ?? 0;
    Atomics.store(words, at + RecordWord.IsComplete, 1);
    return record;
  }
  return -1;
}

/** Clears a record: this thread frees the holding itself, or other threads know of it now. */
export function letGo(record: number): void {
  if (record < 0 || table === undefined) return;
  const at = record * WORDS;
  Atomics.store(table.words, at + RecordWord.IsComplete, 0);
  const owner = Atomics.exchange(table.words, at + RecordWord.Thread, 0);
  assert(owner === THREAD_ID, () => `thread ${THREAD_ID} let go record ${record} of ${owner}`);
}

/** Frees the holdings of threads that have ended. Returns how many. */
export function freeHoldingsOfDead(): number {
  table ??= openTable();
  if (table === undefined) return 0;
  const { words } = table;
  let freed = 0;
  for (let record = 0; record < RECORDS; record++) {
    const at = record * WORDS;
    const thread = Atomics.load(words, at + RecordWord.Thread);
    if (thread === 0 || isThreadAlive(thread)) continue;
    // The record is now this thread's. If this thread dies meanwhile, another one frees it.
    if (Atomics.compareExchange(words, at + RecordWord.Thread, thread, THREAD_ID) !== thread)
      continue;
    const isComplete = Atomics.exchange(words, at + RecordWord.IsComplete, 0) === 1;
    if (isComplete) free(table, record);
    Atomics.store(words, at + RecordWord.Thread, 0);
    if (isComplete) freed++;
  }
  return freed;
}

function free({ fields }: Table, record: number): void {
  const field = record * FIELDS;
  const fd = fields[field + RecordField.Fd]!;
  const address = fields[field + RecordField.Address]!;
  if (address !== 0) {
    const lengthBytes = fields[field + RecordField.LengthBytes]!;
    // The thread may have transferred a view's buffer. Its memory reads as zero from now on.
    const keptBytes = Math.min(fileStatus(fd).sizeBytes, lengthBytes);
    if (keptBytes > 0) mapAnonymousAt(address, keptBytes);
    if (keptBytes < lengthBytes) unmap(address + keptBytes, lengthBytes - keptBytes);
    unmap(fields[field + RecordField.TableAddress]!, fields[field + RecordField.TableBytes]!);
  }
  closeFile(fd);
}

const SWEEP_MS = 1000;
let sweeper: ReturnType<typeof setInterval> | undefined;

/** Makes this thread free dead threads' holdings from time to time, between its other work. */
export function startSweeping(): void {
  sweeper ??= setInterval(freeHoldingsOfDead, SWEEP_MS).unref();
}

export function stopSweeping(): void {
  clearInterval(sweeper);
  sweeper = undefined;
}
