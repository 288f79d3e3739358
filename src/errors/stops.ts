/** Errors of threads that share a MemoryFile: saves stop them, and some have promised only to read. */

/**
 * Threads did not stop in time for a consistent save, which failed; nothing is lost. Call
 * `safepoint()` in long turns of those threads, and block inside `parked()`.
 */
export class StopTimeoutError extends Error {
  override readonly name = "StopTimeoutError";
  readonly code = "ERR_STOP_TIMEOUT";
  /** The kernel's ids of the threads (`ps -T`); the main thread has the process's. */
  readonly threadIds: readonly number[];
  readonly timeoutMs: number;

  constructor(threadIds: readonly number[], timeoutMs: number) {
    const named = threadIds.map((id) => (id === process.pid ? `${id} (the main thread)` : `${id}`));
    super(
      `Thread ${named.join(", ")} did not stop within ${timeoutMs} ms: call safepoint() in long ` +
        "turns, block inside parked(), attach with { readOnly: true }, or raise stopTimeoutMs",
    );
    this.threadIds = threadIds;
    this.timeoutMs = timeoutMs;
  }
}

/**
 * A thread that attached with `{ readOnly: true }` called a method that changes the file. Attach
 * without it to change the file.
 */
export class ReadOnlyError extends Error {
  override readonly name = "ReadOnlyError";
  readonly code = "ERR_READ_ONLY";

  constructor(what: string, method: string) {
    super(`Cannot call ${method} on ${what}, which this thread attached with { readOnly: true }`);
  }
}
