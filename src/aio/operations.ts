/**
 * The operations of one queue: a table of `capacity` slots in typed arrays over one
 * SharedArrayBuffer. So Workers see the same slots, and the addresses of iovecs never change.
 *
 * A slot's states, and the cause of each change:
 *
 *   free -> queued                the owner adds an operation
 *   queued -> running + performer a performer takes it (compare-exchange)
 *   running -> done               the performer stores the result; the owner, if the performer died
 *   queued -> free                the owner stops the queue
 *   done -> free                  the owner delivers the completion
 *
 * The owner writes the other columns of a slot before it stores `queued`. The performer writes the
 * result and the remaining part of the operation before it stores `done`. Both stores are
 * sequentially consistent, so a thread that sees the state sees the columns.
 */
import { addressOf, checkInteger, MAX_IOVECS, showValue } from "../../ffi/index.ts";
import { MAX_TRANSFER_BYTES } from "./coalesce.ts";

/** A state below RUNNING is exact; from there up it is RUNNING + the performer's number. */
export const SlotState = { Free: 0, Queued: 1, Done: 2, Running: 16 } as const;

export const Kind = { Read: 0, Write: 1, Readv: 2, Writev: 3 } as const;

/** Indexes of the 32-bit words at the start. */
export const QueueWord = {
  Capacity: 0,
  /** The owner adds 1 at each add and at Stop. Idle Workers wait for it. */
  Added: 1,
  /** A performer adds 1 at each completion. The owner waits for it. */
  Completed: 2,
  /** 1 once Workers must leave. */
  Stop: 3,
  /**
   * The slot at which the search for a queued one begins. It is after the last one taken, so no
   * slot starves. A hint.
   */
  Cursor: 4,
  /** Kernel thread ids of the queue's Workers; 0 before a Worker has started. */
  Threads: 16,
} as const;

export const MAX_CAPACITY = 4096;
export const MAX_THREADS = 48;
const HEADER_WORDS = QueueWord.Threads + MAX_THREADS;
const IOVEC_WORDS = 4;

export class OperationTable {
  readonly buffer: SharedArrayBuffer;
  readonly capacity: number;
  readonly words: Int32Array;
  readonly state: Int32Array;
  readonly kind: Int32Array;
  readonly fd: Int32Array;
  /** For vector operations: the number of remaining iovecs, and the index of the first. */
  readonly iovecCount: Int32Array;
  readonly iovecFirst: Int32Array;
  readonly id: Float64Array;
  /**
   * The remaining part of the operation: memory (for Read and Write), bytes, offset in the file.
   */
  readonly address: Float64Array;
  readonly remaining: Float64Array;
  readonly offset: Float64Array;
  /** Bytes moved so far. */
  readonly moved: Float64Array;
  readonly result: Float64Array;
  /** struct iovec: address and length, 64 bits each, MAX_IOVECS for each slot. */
  private readonly iovecs: Uint32Array;
  private readonly iovecBase: number;

  /** A new table, or one that another thread made. */
  constructor(source: number | SharedArrayBuffer) {
    if (source instanceof SharedArrayBuffer) {
      this.buffer = source;
    } else {
      checkInteger("capacity", source, 1, MAX_CAPACITY);
      this.buffer = new SharedArrayBuffer(
        4 * HEADER_WORDS + source * (6 * 8 + 5 * 4 + 4 * IOVEC_WORDS * MAX_IOVECS),
      );
      new Int32Array(this.buffer)[QueueWord.Capacity] = source;
    }
    const { buffer } = this;
    this.words = new Int32Array(buffer, 0, HEADER_WORDS);
    const capacity = this.words[QueueWord.Capacity]!;
    this.capacity = capacity;
    let at = 4 * HEADER_WORDS;
    const floats = () => {
      const column = new Float64Array(buffer, at, capacity);
      at += 8 * capacity;
      return column;
    };
    this.id = floats();
    this.address = floats();
    this.remaining = floats();
    this.offset = floats();
    this.moved = floats();
    this.result = floats();
    this.iovecs = new Uint32Array(buffer, at, capacity * IOVEC_WORDS * MAX_IOVECS);
    this.iovecBase = addressOf(this.iovecs);
    at += this.iovecs.byteLength;
    const integers = () => {
      const column = new Int32Array(buffer, at, capacity);
      at += 4 * capacity;
      return column;
    };
    this.state = integers();
    this.kind = integers();
    this.fd = integers();
    this.iovecCount = integers();
    this.iovecFirst = integers();
  }

  /** Address of the slot's first remaining iovec. */
  iovecAddress(slot: number): number {
    return this.iovecBase + 4 * IOVEC_WORDS * (slot * MAX_IOVECS + this.iovecFirst[slot]!);
  }

  /**
   * Fills a free slot with a Read or Write.
   * @throws {TypeError} {RangeError} with the slot still free
   */
  set(
    slot: number,
    kind: number,
    id: number,
    fd: number,
    address: number,
    lengthBytes: number,
    offset: number,
  ): void {
    checkInteger("address", address, 1);
    checkInteger("lengthBytes", lengthBytes, 1, MAX_TRANSFER_BYTES);
    this.setCommon(slot, kind, id, fd, lengthBytes, offset);
    this.address[slot] = address;
    this.iovecCount[slot] = 0;
  }

  /**
   * Fills a free slot with a Readv or Writev.
   * @throws {TypeError} {RangeError} with the slot still free
   */
  setVector(
    slot: number,
    kind: number,
    id: number,
    fd: number,
    iovecs: Float64Array,
    count: number,
    offset: number,
  ): void {
    if (!(iovecs instanceof Float64Array))
      throw new TypeError(`Expected iovecs to be a Float64Array, got ${showValue(iovecs)}`);
    checkInteger("iovec count", count, 1, Math.min(MAX_IOVECS, iovecs.length >>> 1));
    let lengthBytes = 0;
    let at = slot * MAX_IOVECS * IOVEC_WORDS;
    for (let i = 0; i < count; i++) {
      const address = iovecs[2 * i]!;
      const bytes = iovecs[2 * i + 1]!;
      checkInteger("iovec address", address, 1);
      checkInteger("iovec length", bytes, 1, MAX_TRANSFER_BYTES);
      this.setIovec(at, address, bytes);
      lengthBytes += bytes;
      at += IOVEC_WORDS;
    }
    checkInteger("sum of iovec lengths", lengthBytes, 1, MAX_TRANSFER_BYTES);
    this.setCommon(slot, kind, id, fd, lengthBytes, offset);
    this.iovecCount[slot] = count;
    this.iovecFirst[slot] = 0;
  }

  private setIovec(at: number, address: number, lengthBytes: number): void {
    const { iovecs } = this;
    iovecs[at] = address;
    iovecs[at + 1] = address / 2 ** 32;
    iovecs[at + 2] = lengthBytes;
    iovecs[at + 3] = 0;
  }

  private setCommon(
    slot: number,
    kind: number,
    id: number,
    fd: number,
    lengthBytes: number,
    offset: number,
  ): void {
    checkInteger("id", id);
    // The kernel refuses a bad descriptor (EBADF). Here it only has to fit in an integer.
    checkInteger("fd", fd, 0, 2 ** 31 - 1);
    checkInteger("offset", offset);
    this.kind[slot] = kind;
    this.id[slot] = id;
    this.fd[slot] = fd;
    this.remaining[slot] = lengthBytes;
    this.offset[slot] = offset;
    this.moved[slot] = 0;
  }

  /** The first contiguous piece of the remaining memory. */
  firstPiece(slot: number): { address: number; lengthBytes: number } {
    if (this.kind[slot]! < Kind.Readv)
      return { address: this.address[slot]!, lengthBytes: this.remaining[slot]! };
    const { iovecs } = this;
    const at = (slot * MAX_IOVECS + this.iovecFirst[slot]!) * IOVEC_WORDS;
    return { address: iovecs[at]! + iovecs[at + 1]! * 2 ** 32, lengthBytes: iovecs[at + 2]! };
  }

  /** Records that the operation has moved `bytes` more: the remaining part begins after them. */
  advance(slot: number, bytes: number): void {
    this.moved[slot]! += bytes;
    this.offset[slot]! += bytes;
    this.remaining[slot]! -= bytes;
    if (this.kind[slot]! < Kind.Readv) this.address[slot]! += bytes;
    else if (this.remaining[slot]! > 0) this.advanceIovecs(slot, bytes);
  }

  private advanceIovecs(slot: number, bytes: number): void {
    const { iovecFirst, iovecCount } = this;
    let left = bytes;
    for (;;) {
      const { address, lengthBytes } = this.firstPiece(slot);
      if (left < lengthBytes) {
        this.setIovec(
          (slot * MAX_IOVECS + iovecFirst[slot]!) * IOVEC_WORDS,
          address + left,
          lengthBytes - left,
        );
        return;
      }
      left -= lengthBytes;
      iovecFirst[slot]!++;
      iovecCount[slot]!--;
    }
  }
}
