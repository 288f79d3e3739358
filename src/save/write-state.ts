/**
 * The state that the threads of one save share, beside the save table. Units of used pages are
 * numbered by ticket. A thread takes the next ticket, finds and copies its pages, and then waits:
 * in the order of tickets, each thread reserves the next bytes of the page file. Then it writes,
 * while others reserve.
 *
 * So contents are in the order of memory, at any speed of the threads: the same memory gives the
 * same file. The reserving thread passes on to the next ticket by a sequentially consistent store,
 * which publishes its other stores.
 */
export const WriteWord = {
  /** 1: a thread that sees it leaves. */
  Stop: 0,
  /** The next ticket. Atomics.add. */
  Ticket: 1,
  /** The ticket that may reserve. */
  Reserving: 2,
  /** Frames reserved so far. Written by the reserving thread. */
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
  /** f64: bytes of the page file that are reserved. Written by the reserving thread. */
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

/** Waits until the ticket may reserve. False if the save was stopped. */
export function waitToReserve(words: Int32Array, ticket: number): boolean {
  for (;;) {
    const reserving = Atomics.load(words, WriteWord.Reserving);
    if (Atomics.load(words, WriteWord.Stop) !== 0) return false;
    if (reserving === ticket) return true;
    // `stopWriting` wakes, but it may do so between the two reads.
    Atomics.wait(words, WriteWord.Reserving, reserving, STOP_CHECK_MS);
  }
}

/** The same in a thread that needs its event loop meanwhile. */
export async function waitToReserveAsync(words: Int32Array, ticket: number): Promise<boolean> {
  for (;;) {
    const reserving = Atomics.load(words, WriteWord.Reserving);
    if (Atomics.load(words, WriteWord.Stop) !== 0) return false;
    if (reserving === ticket) return true;
    const wait = Atomics.waitAsync(words, WriteWord.Reserving, reserving, STOP_CHECK_MS);
    if (wait.async) await wait.value;
  }
}

/** Lets the next ticket reserve. */
export function passOn(words: Int32Array, ticket: number): void {
  Atomics.store(words, WriteWord.Reserving, ticket + 1);
  Atomics.notify(words, WriteWord.Reserving);
}

export function stopWriting(words: Int32Array): void {
  Atomics.store(words, WriteWord.Stop, 1);
  Atomics.notify(words, WriteWord.Reserving);
}
