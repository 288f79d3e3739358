/**
 * What the threads of one save share: words, and the columns that they fill. Pieces of memory are numbered by ticket, and two
 * batons go from ticket to ticket, in order:
 *
 *   CursorTurn   its owner moves the cursor: finds the next piece's pages with memory (SEEK_DATA, SEEK_HOLE).
 *   OffsetTurn   its owner appends what it found to be stored: extents, checksums, and so the piece's place in the file.
 *
 * Between the two, and after the second, all threads work at once: zero test, copy, checksums; the write. So the file's
 * contents stand in the order of memory, one extent behind the other, whichever thread was faster. The cursor and the
 * counts are written only by a baton's owner; handing it on is a sequentially consistent store, and so publishes them.
 */
export const WriteWord = {
  /** 1: whoever sees it leaves, with or without a baton. */
  Stop: 0,
  /** The next ticket. Atomics.add. */
  Ticket: 1,
  CursorTurn: 2,
  OffsetTurn: 3,
  /** The cursor: index of the file, of its run, the next page; and where the data at it or next after it begins and ends. */
  CursorFile: 4,
  CursorRun: 5,
  CursorPage: 6,
  CursorDataStart: 14,
  CursorDataEnd: 7,
  /** Pages placed in the pages file so far. */
  PlacedPages: 8,
  ExtentCount: 9,
  /** The file of the last piece that was placed. */
  PlacedFile: 10,
  /** Pages that had memory but only zeros. Atomics.add. */
  ZeroPages: 11,
  /** Atomics.add. */
  WrittenPages: 12,
  /** 1 while the pages file is longer than what is placed in it. Written by the owner of CursorTurn, then of OffsetTurn. */
  Allocated: 13,
} as const;

const WORDS = 16;

/** Where one file's pages are: a memory file and its mapping. */
export interface WriteSource {
  /** The file's control block: each writer is a participant, for the thread that saves may die before it. */
  readonly control: SharedArrayBuffer;
  readonly fd: number;
  readonly base: number;
  /** Used pages: runs, ordered and disjoint. */
  readonly start: Uint32Array;
  readonly length: Uint32Array;
}

/** Structured-cloneable. */
export interface WriteHandle {
  readonly words: SharedArrayBuffer;
  /** u32 columns: extents of all files, each file's behind the one's before it. */
  readonly extentStart: SharedArrayBuffer;
  readonly extentLength: SharedArrayBuffer;
  /** u32 a file: its first extent; meant for files up to PlacedFile. */
  readonly firstExtent: SharedArrayBuffer;
  /** u32 a page of the pages file: CRC-32 of the bytes written. */
  readonly checksums: SharedArrayBuffer;
}

export interface WriteState {
  readonly words: Int32Array<SharedArrayBuffer>;
  readonly extentStart: Uint32Array;
  readonly extentLength: Uint32Array;
  readonly firstExtent: Uint32Array;
  readonly checksums: Uint32Array;
}

/** Reserved for the worst case, every page an extent of its own; memory that is not touched costs nothing. */
export function createWriteHandle(files: number, usedPages: number): WriteHandle {
  return {
    words: new SharedArrayBuffer(4 * WORDS),
    extentStart: new SharedArrayBuffer(4 * usedPages),
    extentLength: new SharedArrayBuffer(4 * usedPages),
    firstExtent: new SharedArrayBuffer(4 * files),
    checksums: new SharedArrayBuffer(4 * usedPages),
  };
}

export function openWriteHandle(handle: WriteHandle): WriteState {
  return {
    words: new Int32Array(handle.words),
    extentStart: new Uint32Array(handle.extentStart),
    extentLength: new Uint32Array(handle.extentLength),
    firstExtent: new Uint32Array(handle.firstExtent),
    checksums: new Uint32Array(handle.checksums),
  };
}

/** Waits for a baton. False if the save was stopped. */
export function waitTurn(words: Int32Array, baton: number, ticket: number): boolean {
  for (;;) {
    const turn = Atomics.load(words, baton);
    if (Atomics.load(words, WriteWord.Stop) !== 0) return false;
    if (turn === ticket) return true;
    // Whoever stops a save wakes both batons (stopWriting), but it may do so between our two looks.
    Atomics.wait(words, baton, turn, STOP_CHECK_MS);
  }
}

const STOP_CHECK_MS = 100;

/** Hands the baton to the next ticket. */
export function passTurn(words: Int32Array, baton: number, ticket: number): void {
  Atomics.store(words, baton, ticket + 1);
  Atomics.notify(words, baton);
}

export function stopWriting(words: Int32Array): void {
  Atomics.store(words, WriteWord.Stop, 1);
  Atomics.notify(words, WriteWord.CursorTurn);
  Atomics.notify(words, WriteWord.OffsetTurn);
}
