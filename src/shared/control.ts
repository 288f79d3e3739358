/**
 * The control block of a MemoryFile: the words that all its threads share, in one SharedArrayBuffer (`Atomics.wait`
 * refuses memory of any other kind). Everything larger lies in anonymous mappings whose addresses stand here.
 *
 * "lock" below means: written with the file's lock held, read either with it or as a hint.
 */

/** Indexes of 32-bit words. */
export const Word = {
  /** The lock (shared/lock.ts): 0, or the kernel thread id of its owner, with a bit for waiters. */
  Lock: 0,
  /** 1 once a thread died inside the lock: the tables may be half changed, so every call throws from then on. */
  Failed: 1,
  /** 0 live; 1 destroyed. Set once, atomically, by the thread that calls destroy(); waited for by attached threads. */
  Destroyed: 2,
  /** Pages of the file: chunks times pages per chunk. lock. Grows only, after the new chunks are mapped. */
  SizePages: 3,
  /** Pages with references. lock. */
  UsedPages: 4,
  /** Pages that are waste, held or releasing. lock. */
  WastePages: 5,
  /** Pages that are held: dropped while a load was writing to them. lock. */
  HeldPages: 6,
  /** 1 while some thread has undertaken to release waste; compare-exchange from 0. */
  Releaser: 7,
  /** 1 while a background load is under way. Set before the file is handed out; cleared by the last loaded page. */
  Loading: 8,
  /** Changes whenever a range that somebody waits for has been loaded or has failed. Waited for by waiters. */
  LoadProgress: 9,
  /** 1 while a save reads the file. */
  Saving: 10,
  /** Pages known to be committed (accounting/commitment.ts). lock. */
  KnownPages: 16,
  /** 1 once Field.AccountingAddress is set. lock. */
  AccountingActive: 17,
  /** The first page of the window that a scan is looking at, -1 between windows. lock. */
  WindowStart: 18,
  /** Kernel thread id of the thread that scans for committed pages, 0 if none; compare-exchange. Waited for. */
  Scanner: 19,
  /** 1 once pages were committed that SEEK_DATA does not show (fallocate alone does that). Set before; never cleared. */
  UnseenCommits: 20,
  /** What counts as memory pressure (eviction/pressure-file.ts). Written before the file is shared, never changed. */
  PressureStallMs: 24,
  PressureWindowMs: 25,
  /** Threads that use the file: one kernel thread id a slot, 0 when free (compare-exchange). */
  Participants: 64,
} as const;

export const MAX_PARTICIPANTS = 192;

/** Indexes of 64-bit floats behind the words. Written before the file is shared, and not changed but where it says so. */
export const Field = {
  BaseAddress: 0,
  TableAddress: 1,
  CapacityPages: 2,
  LimitPages: 3,
  Fd: 4,
  LoadAddress: 5,
  LoadBytes: 6,
  Flags: 7,
  /** These three change later, with the lock held. */
  AccountingAddress: 8,
  ScanBeganMs: 9,
  ScanTookMs: 10,
} as const;

const WORDS = 256;
const FIELDS = 16;

export interface Control {
  readonly buffer: SharedArrayBuffer;
  readonly words: Int32Array<SharedArrayBuffer>;
  readonly fields: Float64Array<SharedArrayBuffer>;
}

export function createControl(): Control {
  return openControl(new SharedArrayBuffer(4 * WORDS + 8 * FIELDS));
}

export function openControl(buffer: SharedArrayBuffer): Control {
  if (!(buffer instanceof SharedArrayBuffer) || buffer.byteLength !== 4 * WORDS + 8 * FIELDS) {
    throw new TypeError("Expected a handle made by MemoryFile.share()");
  }
  return { buffer, words: new Int32Array(buffer, 0, WORDS), fields: new Float64Array(buffer, 4 * WORDS, FIELDS) };
}
