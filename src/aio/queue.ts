/**
 * Queue: one thread starts reads and writes of files; they are done elsewhere or later, and a wait
 * delivers their results. The contract is gVisor's (pkg/aio): a capacity, operations with an id of
 * the caller's, wait for at least n completions, destroy cancels and waits.
 *
 * Rules that every queue follows:
 * - One thread owns a queue. Operations have no order: any may end before any other.
 * - A result is the number of bytes moved, or a negative error number with Node's sign. A queue
 *   never throws a file's error.
 * - A short read or write continues where it stopped. A result is less than the length only at the
 *   end of the file. If an error follows bytes that were moved, the result is the error.
 * - A file must have positions. A queue that reads with pread(2) refuses pipes, sockets and
 *   terminals (ESPIPE); do not use them with any queue.
 * - The caller owns the memory. It must stay valid until a wait has delivered the operation or
 *   `destroy` has resolved.
 */

/** Operations that have ended. The queue owns the arrays. They are valid until its next wait. */
export interface Completions {
  readonly count: number;
  /** `ids[i]` for i < count: the id given when the operation was added. */
  readonly ids: Float64Array;
  /** `results[i]` for i < count: bytes moved, or the negative error number. */
  readonly results: Float64Array;
}

export interface Queue extends AsyncDisposable {
  /** The most operations that may be in flight. */
  readonly capacity: number;
  /** Operations that were added and that no wait has delivered. */
  readonly inFlight: number;

  /**
   * Adds a read of `lengthBytes` (1 to MAX_TRANSFER_BYTES) at byte `offset` of the file into native
   * memory at `address`. Some queues start it only at the next wait (`wait(0)` is enough).
   *
   * @throws {TypeError} {RangeError} if an argument is not an integer in its range, or `capacity`
   * operations are in flight
   * @throws {DestroyedError}
   */
  read(id: number, fd: number, address: number, lengthBytes: number, offset: number): void;
  /** Adds a write from native memory at `address`. @throws as `read` */
  write(id: number, fd: number, address: number, lengthBytes: number, offset: number): void;
  /**
   * Adds a read into `count` (1 to 1024) pieces of memory. Piece i is `iovecs[2 * i + 1]` bytes at
   * address `iovecs[2 * i]`. The numbers are copied at once.
   * @throws as `read`
   */
  readv(id: number, fd: number, iovecs: Float64Array, count: number, offset: number): void;
  /** Adds a write from pieces of memory. @throws as `readv` */
  writev(id: number, fd: number, iovecs: Float64Array, count: number, offset: number): void;

  /**
   * Blocks this thread until at least `minCompletions` operations have ended, and delivers all that
   * have ended. With 0 it starts all added operations and never blocks.
   * @throws {RangeError} if fewer are in flight
   * @throws {QueueBusyError} while a `waitAsync` is pending
   */
  wait(minCompletions: number): Completions;
  /**
   * `wait` for an event loop. The process stays alive meanwhile. Rejects with the errors of `wait`.
   */
  waitAsync(minCompletions: number): Promise<Completions>;

  /**
   * Cancels operations that have not started. Resolves when no operation touches memory any more: a
   * Worker's blocking read ends when its file answers, and io_uring cancels its reads. Pending
   * waits reject. Idempotent.
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

/** The kernel or the container does not allow io_uring. The message says why. */
export class UringUnavailableError extends Error {
  override readonly name = "UringUnavailableError";
  readonly code = "ERR_URING_UNAVAILABLE";
  readonly reason: string;

  constructor(reason: string) {
    super(`Cannot use io_uring: ${reason}; use "workers" or "auto"`);
    this.reason = reason;
  }
}
