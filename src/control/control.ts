/**
 * The control block of a MemoryFile: the words that all its threads share, in one SharedArrayBuffer (`Atomics.wait`
 * refuses memory of any other kind). Everything larger lies in anonymous mappings whose addresses stand here.
 *
 * docs/memory-order.md says of each word in what order it is written with others, and what a reader may conclude. "lock"
 * below means: written with the file's lock held, read either with it or as a hint.
 */

/** Indexes of 32-bit words. */
export const Word = {
  /** The lock (shared/lock.ts): 0, or its owner's thread word, with a bit for waiters. */
  Lock: 0,
  /** 1 once a thread died inside the lock and the tables could not be repaired: every call throws from then on. */
  Failed: 1,
  /** 0 live; 1 destroyed; 2 being unmapped. Compare-exchange upwards (shared/participants.ts); waited for by threads. */
  Destroyed: 2,
  /** Pages of the file: chunks times pages per chunk. lock. Grows only, after the new chunks are mapped. */
  SizePages: 3,
  /** Pages with references. lock. */
  UsedPages: 4,
  /** Pages that are waste, held or releasing. lock. */
  WastePages: 5,
  /** Pages that are held: dropped while a load was writing to them. lock. */
  HeldPages: 6,
  /** The thread that has undertaken to release waste, or 0; compare-exchange. */
  Releaser: 7,
  /** 1 while a background load is under way. Set before the file is handed out; cleared by the last loaded page. */
  Loading: 8,
  /** Changes whenever a range that somebody waits for has been loaded or has failed. Waited for by waiters. */
  LoadProgress: 9,
  /** 1 while a save reads the file. */
  Saving: 10,
  /** 1 once a thread that delays the unmapping has been reported. */
  DelayReported: 11,
  /** 1 once a view's buffer was transferred away, so that it outlives the file (mapping/views.ts). Never cleared. */
  Escaped: 12,
  /** 1 once there is a handle to the file: before, only the thread that made it can use it. Set by that thread; never cleared. */
  Shared: 13,
  /** Counts, modulo 2^32, how often pages lost their last reference: what had one is looked at anew only when it changed. lock. */
  Discards: 14,
  /** Pages known to be committed (accounting/commitment.ts). lock. */
  KnownPages: 16,
  /** 1 once Field.AccountingAddress is set. lock. */
  AccountingActive: 17,
  /** The first page of the window that a scan is looking at, -1 between windows. lock. */
  WindowStart: 18,
  /** Thread word of the thread that scans for committed pages, 0 if none; compare-exchange. Waited for. */
  Scanner: 19,
  /** 1 once pages were committed that SEEK_DATA does not show (fallocate alone does that). Set before; never cleared. */
  UnseenCommits: 20,
  /** What counts as memory pressure (eviction/pressure-file.ts). Written before the file is shared, never changed. */
  PressureStallMs: 24,
  PressureWindowMs: 25,
  /** 1 once Field.TrackingAddress is set: written pages are tracked (changes/). lock. Never cleared. */
  Tracking: 26,
  /** MAX_PARTICIPANTS records of ParticipantWord: the threads that may touch the memory. */
  Participants: 64,
} as const;

/** Words of a participant's record. */
export const ParticipantWord = {
  /** The thread's word; 0 when the record is free. compare-exchange from 0 or from a dead thread. */
  Thread: 0,
  /** Within these pages, half-open, the thread is decommitting some; end 0 when none. lock. */
  ReleaseStart: 1,
  ReleaseEnd: 2,
  /** 1 if they are one run in a chunk of huge pages. lock. */
  ReleasesHuge: 3,
} as const;

export const PARTICIPANT_WORDS = 4;
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
  /** Tables of written pages (changes/tables.ts). Set with the lock held, before Word.Tracking. */
  TrackingAddress: 11,
  /** Says that this is a control block, of this layout. */
  Magic: 12,
  /** A number that no other file of the process has. */
  FileId: 13,
  ProcessId: 14,
  /** What fstat(2) says of `Fd`. */
  Inode: 15,
} as const;

const MAGIC = 0x7067_616c_0001;
const WORDS = Word.Participants + MAX_PARTICIPANTS * PARTICIPANT_WORDS;
const FIELDS = 16;
const LENGTH_BYTES = 4 * WORDS + 8 * FIELDS;

export interface Control {
  readonly buffer: SharedArrayBuffer;
  readonly words: Int32Array<SharedArrayBuffer>;
  readonly fields: Float64Array<SharedArrayBuffer>;
}

export function createControl(): Control {
  const control = viewControl(new SharedArrayBuffer(LENGTH_BYTES));
  control.fields[Field.Magic] = MAGIC;
  control.fields[Field.ProcessId] = process.pid;
  return control;
}

/** @throws {TypeError} if it is not the control block of a file of this process */
export function openControl(buffer: SharedArrayBuffer): Control {
  if (buffer instanceof SharedArrayBuffer && buffer.byteLength === LENGTH_BYTES) {
    const control = viewControl(buffer);
    if (control.fields[Field.Magic] === MAGIC && control.fields[Field.ProcessId] === process.pid)
      return control;
  }
  throw new TypeError("Expected a handle made by MemoryFile.share() in this process");
}

function viewControl(buffer: SharedArrayBuffer): Control {
  return {
    buffer,
    words: new Int32Array(buffer, 0, WORDS),
    fields: new Float64Array(buffer, 4 * WORDS, FIELDS),
  };
}

/** Has all who wait for pages look again. */
export function wakeWaiters(control: Control): void {
  Atomics.add(control.words, Word.LoadProgress, 1);
  Atomics.notify(control.words, Word.LoadProgress);
}
