/**
 * The control block of a MemoryFile: the words that all its threads share, in one SharedArrayBuffer
 * (`Atomics.wait` accepts no other memory). Larger tables are in anonymous mappings, and the block
 * has their addresses.
 *
 * docs/memory-order.md states for each word the order in which it is written with others, and what
 * a reader may conclude. "lock" below means: written with the file's lock held, and read with the
 * lock held or as a hint.
 */

import { COUNTERS, type Counters } from "./counters.ts";

/** Indexes of 32-bit words. */
export const Word = {
  /** The lock (lock.ts): 0, or its owner's thread word with a bit for waiters. */
  Lock: 0,
  /** 1 once a thread died inside the lock and the tables cannot be repaired: every call throws. */
  Failed: 1,
  /**
   * 0 live, 1 destroyed, 2 being unmapped. Only rises, by compare-exchange (participants.ts).
   * Waited for.
   */
  Destroyed: 2,
  /**
   * Pages of the file, a multiple of a chunk. lock. Only grows, after the new chunks are mapped.
   */
  SizePages: 3,
  /** Pages with references. lock. */
  UsedPages: 4,
  /** Pages that are waste, held or releasing. lock. */
  WastePages: 5,
  /** Pages that are held: they lost their references while a load wrote into them. lock. */
  HeldPages: 6,
  /** The thread that releases waste in its turns of the event loop, or 0; compare-exchange. */
  Releaser: 7,
  /** 1 during a background load. Set before the file is handed out; cleared with the last page. */
  Loading: 8,
  /** Changes when a range with a waiter has loaded or failed. Waited for. */
  LoadProgress: 9,
  /** 1 while a save reads the file. */
  Saving: 10,
  /** 1 once the library has reported a thread that delays the unmapping. */
  DelayReported: 11,
  /** 1 once a view's buffer may outlive the file, because it was transferred. Never cleared. */
  Escaped: 12,
  /**
   * 1 once the file has a handle. Until then only the thread that made it can use it. Never
   * cleared.
   */
  Shared: 13,
  /**
   * Counts, modulo 2^32, how often pages lost their last reference. While it is unchanged, a cached
   * check of a range is valid. lock.
   */
  Discards: 14,
  /** Pages known to be committed (accounting/commitment.ts). lock. */
  KnownPages: 16,
  /** 1 once Field.AccountingAddress is set. lock. */
  AccountingActive: 17,
  /** The first page of the window that a scan reads, -1 between windows. lock. */
  WindowStart: 18,
  /** The thread that scans for committed pages, 0 if none; compare-exchange. Waited for. */
  Scanner: 19,
  /** 1 once pages were committed that SEEK_DATA does not show (by fallocate). Never cleared. */
  UnseenCommits: 20,
  /** Counts released batches of waste. Allocations wait for it. */
  Releases: 21,
  /** Threads that wait for `Releases`. If there are none, no wake-up is sent. */
  ReleaseWaiters: 22,
  /** 1 once any thread has marked memory as evictable. Never cleared. */
  Evictable: 23,
  /** What counts as memory pressure. Written before the file is shared, never changed. */
  PressureStallMs: 24,
  PressureWindowMs: 25,
  /** 1 once Field.TrackingAddress is set: writes are tracked (changes/). lock. Never cleared. */
  Tracking: 26,
  /** Counts requests to all threads to evict. Threads with evictable memory wait for it. */
  EvictionRequests: 27,
  /** 1 while a request that the limit caused waits for its first thread. */
  EvictionPending: 28,
  /** The thread that asks all others to stop (stops.ts), or 0; compare-exchange. Waited for. */
  Stop: 29,
  /** Changes when a thread has stopped. The thread that asked waits for it. */
  StopProgress: 30,
  /**
   * The service thread of the file, or the thread that starts one; 0 if the file is not shared.
   * Compare-exchange from 0 or from a dead thread.
   */
  Service: 31,
  /** MAX_PARTICIPANTS records of ParticipantWord: the threads that may touch the memory. */
  Participants: 64,
} as const;

/** Words of a participant's record. */
export const ParticipantWord = {
  /** The thread's word; 0 if the record is free. Compare-exchange from 0 or from a dead thread. */
  Thread: 0,
  /** The pages that the thread is decommitting (half-open); end 0 if none. lock. */
  ReleaseStart: 1,
  ReleaseEnd: 2,
  /** 1 if these pages are one run in a chunk of huge pages. lock. */
  ReleasesHuge: 3,
  /** 1 while the thread has marked memory as evictable. Written by that thread. */
  HasEvictable: 4,
  /** The last of `EvictionRequests` that the thread has carried out. Written by that thread. */
  EvictionsDone: 5,
  /** A ParticipantState. Written by that thread. */
  State: 6,
} as const;

export const ParticipantState = {
  /** It never stops: a thread that only reads, or a thread of the library that loads or saves. */
  Exempt: 0,
  /** It may write to the memory at any time. */
  Running: 1,
  /** It touches no memory of the file until it has read 0 from Word.Stop. */
  Still: 2,
} as const;

export const PARTICIPANT_WORDS = 7;
export const MAX_PARTICIPANTS = 192;

/**
 * Indexes of 64-bit floats after the words. Written before the file is shared, then immutable
 * except where noted.
 */
export const Field = {
  BaseAddress: 0,
  TableAddress: 1,
  CapacityPages: 2,
  LimitPages: 3,
  Fd: 4,
  Flags: 5,
  /** The accounting fields change later, with the lock held. */
  AccountingAddress: 6,
  ScanBeganMs: 7,
  ScanTookMs: 8,
  /** Tables of written pages (changes/tables.ts). Set with the lock held, before Word.Tracking. */
  TrackingAddress: 9,
  /** Marks a control block of this layout. */
  Magic: 10,
  /** A number that no other file of the process has. */
  FileId: 11,
  ProcessId: 12,
  /** The inode of `Fd`. */
  Inode: 13,
  /** Allocations so far, and their pages. Added to with the lock held. */
  Allocations: 14,
  AllocatedPages: 15,
} as const;

/** Pairs of 64-bit words after the counters (core/known-checkpoints.ts). lock. */
export const KNOWN_CHECKPOINTS = 16;

const MAGIC = 0x7067_616c_0002;
const WORDS = Word.Participants + MAX_PARTICIPANTS * PARTICIPANT_WORDS;
const FIELDS = 16;
const CHECKPOINTS_AT = 4 * WORDS + 8 * FIELDS + 8 * COUNTERS;
const LENGTH_BYTES = CHECKPOINTS_AT + 16 * KNOWN_CHECKPOINTS;

export interface Control {
  readonly buffer: SharedArrayBuffer;
  readonly words: Int32Array<SharedArrayBuffer>;
  readonly fields: Float64Array<SharedArrayBuffer>;
  readonly counters: Counters;
  readonly checkpoints: BigUint64Array<SharedArrayBuffer>;
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
    counters: new BigInt64Array(buffer, 4 * WORDS + 8 * FIELDS, COUNTERS),
    checkpoints: new BigUint64Array(buffer, CHECKPOINTS_AT, 2 * KNOWN_CHECKPOINTS),
  };
}

/** Wakes all threads that wait for pages. Each looks again for its own. */
export function wakeWaiters(control: Control): void {
  Atomics.add(control.words, Word.LoadProgress, 1);
  Atomics.notify(control.words, Word.LoadProgress);
}
