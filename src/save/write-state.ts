/**
 * What the threads of one save share, beside the save table. Units of used pages are numbered by
 * ticket. A thread takes the next ticket, finds and copies what there is to store, and then waits
 * for its turn: in the order of tickets, each thread reserves the next bytes of the page file. Then
 * it writes, while others reserve.
 *
 * So contents are in the order of memory, whichever thread was faster: the same memory gives the
 * same file. What the thread whose turn it is writes to the state is published by passing the turn,
 * a sequentially consistent store.
 */
export const WriteWord = {
  /** 1: a thread that sees it leaves. */
  Stop: 0,
  /** The next ticket. Atomics.add. */
  Ticket: 1,
  /** The ticket whose turn it is to reserve. */
  Turn: 2,
  /** Frames reserved so far. Written in turn. */
  FrameCount: 3,
  /** Pages that had memory but only zeros. Atomics.add. */
  ZeroPages: 4,
  /** Pages whose contents are those of the base. Atomics.add. */
  ReusedPages: 5,
  /** Pages with contents that have been written. Atomics.add. */
  WrittenPages: 6,
} as const;

const WORDS = 8;
const STOP_CHECK_MS = 100;

/** Structured-cloneable. */
export interface WriteHandle {
  readonly words: SharedArrayBuffer;
  /** f64: bytes of the page file that are reserved. Written in turn. */
  readonly reservedBytes: SharedArrayBuffer;
}

export interface WriteState {
  readonly words: Int32Array<SharedArrayBuffer>;
  readonly reservedBytes: Float64Array<SharedArrayBuffer>;
}

export function createWriteHandle(reservedBytes = 0): WriteHandle {
  const handle = {
    words: new SharedArrayBuffer(4 * WORDS),
    reservedBytes: new SharedArrayBuffer(8),
  };
  openWriteHandle(handle).reservedBytes[0] = reservedBytes;
  return handle;
}

export function openWriteHandle(handle: WriteHandle): WriteState {
  return {
    words: new Int32Array(handle.words),
    reservedBytes: new Float64Array(handle.reservedBytes),
  };
}

/** Waits for the ticket's turn. False if the save was stopped. */
export function waitTurn(words: Int32Array, ticket: number): boolean {
  for (;;) {
    const turn = Atomics.load(words, WriteWord.Turn);
    if (Atomics.load(words, WriteWord.Stop) !== 0) return false;
    if (turn === ticket) return true;
    // `stopWriting` wakes, but it may do so between the two looks.
    Atomics.wait(words, WriteWord.Turn, turn, STOP_CHECK_MS);
  }
}

/** The same, while the thread's event loop goes round. */
export async function waitTurnAsync(words: Int32Array, ticket: number): Promise<boolean> {
  for (;;) {
    const turn = Atomics.load(words, WriteWord.Turn);
    if (Atomics.load(words, WriteWord.Stop) !== 0) return false;
    if (turn === ticket) return true;
    const wait = Atomics.waitAsync(words, WriteWord.Turn, turn, STOP_CHECK_MS);
    if (wait.async) await wait.value;
  }
}

/** Passes the turn to the next ticket. */
export function passTurn(words: Int32Array, ticket: number): void {
  Atomics.store(words, WriteWord.Turn, ticket + 1);
  Atomics.notify(words, WriteWord.Turn);
}

export function stopWriting(words: Int32Array): void {
  Atomics.store(words, WriteWord.Stop, 1);
  Atomics.notify(words, WriteWord.Turn);
}
