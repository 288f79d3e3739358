/**
 * Errors of threads that share a MemoryFile: they did not stop for a save, or promised only to
 * read.
 */

/**
 * Threads did not stop in time for a consistent save, so the save failed. Nothing is lost. Call
 * `safepoint()` in those threads' long turns of the event loop, and block inside `parked()`.
 */
export class StopTimeoutError extends Error {
  override readonly name = "StopTimeoutError";
  readonly code = "ERR_STOP_TIMEOUT";
  /** The kernel's ids of the threads (`ps -T`). The main thread's is the id of the process. */
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
 * without `readOnly` to change it.
 */
export class ReadOnlyError extends Error {
  override readonly name = "ReadOnlyError";
  readonly code = "ERR_READ_ONLY";

  constructor(what: string, method: string) {
    super(`Cannot call ${method} on ${what}, which this thread attached with { readOnly: true }`);
  }
}
