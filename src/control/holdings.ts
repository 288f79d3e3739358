/**
 * What a thread holds outside of JavaScript and nothing else tells of: files that it never shared,
 * and descriptors. A Worker may end anywhere; another thread of the process then frees what it
 * held.
 *
 * The records are in one table of the process, in memory that is mapped at a fixed address: so any
 * thread finds it without a message from another one. A record is free (thread 0), owned by a
 * living thread, or left by a dead one. It changes hands by compare-exchange of the thread's word,
 * so each record is freed once. The main thread writes no records: its end is that of the process.
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
import { isThreadAlive, nap, THREAD_ID } from "../threads/thread.ts";

/**
 * Linux places programs near the top of the address space or above its middle, and other mappings
 * from the top down: so these addresses are free at the start. The second one is for 39 bits of
 * address space. This module maps the table before the library reserves any memory.
 */
const ADDRESSES = [0x1067_6c00_1000, 0x32_6c00_1000];
/** Marks the table, with the version of its layout. */
const MAGIC = 0x7067_6101;
const MAGIC_ATTEMPTS = 100;
const RECORDS = 4096;
const RECORD_BYTES = 64;
/** The first record's place has the magic number. */
const TABLE_BYTES = (1 + RECORDS) * RECORD_BYTES;

/** Indexes of a record's 32-bit words, and of its 64-bit floats. */
const RecordWord = { Thread: 0, IsComplete: 1 } as const;
const WORDS = RECORD_BYTES / 4;
const RecordField = { Fd: 1, Address: 2, LengthBytes: 3, TableAddress: 4, TableBytes: 5 } as const;
const FIELDS = RECORD_BYTES / 8;

/** What is freed when its thread has ended. */
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

/** Maps the process's table, or finds it. Returns 0 if it cannot be had. */
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
      // Without a table a dead thread's holdings stay until the process ends.
    }
  }
  return 0;
}

/** True if what is mapped there is a table. It may be any memory, so it is read through the kernel. */
function isTable(address: number): boolean {
  const fd = openFile("/proc/self/mem", O_RDONLY);
  try {
    const magic = new Int32Array(new ArrayBuffer(4));
    for (let attempt = 0; attempt < MAGIC_ATTEMPTS; attempt++) {
      if (readAt(fd, addressOf(magic), 4, address) !== 4) return false;
      if (magic[0] !== 0) return magic[0] === MAGIC;
      // Another thread has just mapped it.
      nap(1);
    }
    return false;
  } finally {
    closeFile(fd);
  }
}

const tableAddress = isUsable ? findTable() : 0;

/** The process's table; undefined if it cannot be had. */
function openTable(): Table | undefined {
  if (tableAddress === 0) return undefined;
  const buffer = bufferAt(tableAddress + RECORD_BYTES, TABLE_BYTES - RECORD_BYTES);
  return { words: new Int32Array(buffer), fields: new Float64Array(buffer) };
}

/**
 * Records that this thread holds something. Returns the record for `letGo`, or -1 if there is none.
 */
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

/** This thread frees the holding itself, or others know of it now. */
export function letGo(record: number): void {
  if (record < 0 || table === undefined) return;
  const at = record * WORDS;
  Atomics.store(table.words, at + RecordWord.IsComplete, 0);
  Atomics.store(table.words, at + RecordWord.Thread, 0);
}

/** Frees what threads held that have ended. Returns how many holdings. */
export function freeHoldingsOfDead(): number {
  table ??= openTable();
  if (table === undefined) return 0;
  const { words } = table;
  let freed = 0;
  for (let record = 0; record < RECORDS; record++) {
    const at = record * WORDS;
    const thread = Atomics.load(words, at + RecordWord.Thread);
    if (thread === 0 || isThreadAlive(thread)) continue;
    // From now on the record is this thread's: another one frees it if this one dies meanwhile.
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
    // The thread may have transferred a view's buffer: that reads as zero from now on, for ever.
    const keptBytes = Math.min(fileStatus(fd).sizeBytes, lengthBytes);
    if (keptBytes > 0) mapAnonymousAt(address, keptBytes);
    if (keptBytes < lengthBytes) unmap(address + keptBytes, lengthBytes - keptBytes);
    unmap(fields[field + RecordField.TableAddress]!, fields[field + RecordField.TableBytes]!);
  }
  closeFile(fd);
}

const SWEEP_MS = 1000;
let sweeper: ReturnType<typeof setInterval> | undefined;

/** The calling thread frees dead threads' holdings now and then, in its turns. */
export function startSweeping(): void {
  sweeper ??= setInterval(freeHoldingsOfDead, SWEEP_MS).unref();
}

export function stopSweeping(): void {
  clearInterval(sweeper);
  sweeper = undefined;
}
