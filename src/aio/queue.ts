/**
 * Queue: reads and writes of files that one thread starts, that are done elsewhere or later, and
 * whose results are told. The contract is gVisor's (pkg/aio): a capacity, operations with an id of
 * the caller's, wait for at least n completions, destroy cancels and waits.
 *
 * Rules that every queue follows:
 * - One thread owns a queue. Operations have no order: any may end before any other.
 * - A result is the bytes moved, or a negative error number with Node's sign. A file's errors are
 *   never thrown.
 * - A short read or write goes on where it stopped. A result is smaller than the length only at the
 *   end of the file. If an error follows bytes that were moved, the result is the error.
 * - A file has positions: a pipe, a socket or a terminal is refused (ESPIPE) where the queue reads
 *   with pread(2), and must not be used with any queue.
 * - Memory stays the caller's, and must stay valid until the operation is told or `destroy` has
 *   resolved.
 */

/**
 * Operations that have ended. The arrays are the queue's, and valid until its next wait.
 */
export interface Completions {
  readonly count: number;
  /** `ids[i]` for i < count: what the operation was added with. */
  readonly ids: Float64Array;
  /** `results[i]` for i < count: bytes moved, or the negative error number. */
  readonly results: Float64Array;
}

export interface Queue extends AsyncDisposable {
  /** The most operations that may be in flight. */
  readonly capacity: number;
  /** Operations that were added and have not been told by a wait. */
  readonly inFlight: number;

  /**
   * Adds a read of `lengthBytes` (1 to MAX_TRANSFER_BYTES) at byte `offset` of the file into native
   * memory at `address`. Some queues start it at the next wait only (`wait(0)` is enough).
   *
   * @throws {TypeError} {RangeError} if an argument is no integer in its range, or `capacity`
   * operations are in flight
   * @throws {DestroyedError}
   */
  read(id: number, fd: number, address: number, lengthBytes: number, offset: number): void;
  /** Adds a write from native memory at `address`. @throws as `read` */
  write(id: number, fd: number, address: number, lengthBytes: number, offset: number): void;
  /**
   * Adds a read into `count` (1 to 1024) pieces of memory. Piece i is `iovecs[2 * i + 1]` bytes at
   * address `iovecs[2 * i]`; the numbers are copied at once.
   * @throws as `read`
   */
  readv(id: number, fd: number, iovecs: Float64Array, count: number, offset: number): void;
  /** Adds a write from pieces of memory. @throws as `readv` */
  writev(id: number, fd: number, iovecs: Float64Array, count: number, offset: number): void;

  /**
   * Blocks this thread until at least `minCompletions` operations have ended, and tells all that
   * have. With 0 it starts what has been added and never blocks.
   * @throws {RangeError} if fewer are in flight
   * @throws {QueueBusyError} while a `waitAsync` is pending
   */
  wait(minCompletions: number): Completions;
  /** The same for an event loop; the process stays alive meanwhile. Rejects as `wait` throws. */
  waitAsync(minCompletions: number): Promise<Completions>;

  /**
   * Cancels what has not started, and resolves when nothing touches memory any more: a read that
   * blocks in a Worker ends when its file lets it, in io_uring it is cancelled. Pending waits
   * reject. Idempotent.
   */
  destroy(): Promise<void>;
}

/** A queue was waited for while another wait of it was pending. */
export class QueueBusyError extends Error {
  override readonly name = "QueueBusyError";
  readonly code = "ERR_QUEUE_BUSY";

  constructor() {
    super("Cannot wait for a queue while a waitAsync() of it is pending; await that first");
  }
}

/** The kernel, or the container, has no io_uring for us. The message says why. */
export class UringUnavailableError extends Error {
  override readonly name = "UringUnavailableError";
  readonly code = "ERR_URING_UNAVAILABLE";
  readonly reason: string;

  constructor(reason: string) {
    super(`Cannot use io_uring: ${reason}; use "workers" or "auto"`);
    this.reason = reason;
  }
}
