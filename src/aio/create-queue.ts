/** Chooses a queue. */
import { availableParallelism } from "node:os";
import { checkInteger, checkOptionsObject, showValue, uringUnavailable } from "../../ffi/index.ts";
import { InlineQueue } from "./inline-queue.ts";
import { MAX_THREADS } from "./operations.ts";
import type { Queue } from "./queue.ts";
import { UringQueue } from "./uring-queue.ts";
import { WorkerQueue } from "./worker-queue.ts";

/**
 * - `inline`: in the thread that waits.
 * - `workers`: in Workers, with blocking calls.
 * - `uring`: by the kernel, through io_uring.
 * - `auto`: `uring` if the kernel has it and allows it, else `workers`.
 */
export type QueueKind = "auto" | "workers" | "uring" | "inline";

export interface QueueOptions {
  /** The most operations in flight, 1 to 4096. Default: 32. */
  readonly capacity?: number | null | undefined;
  /**
   * Workers of a `workers` queue, 1 to 48. At most `capacity` are started. Default: the number of
   * processors, 2 to 8.
   */
  readonly threads?: number | null | undefined;
}

const DEFAULT_CAPACITY = 32;

/** Null if io_uring can be used, else the reason in words. */
export function uringUnavailableReason(): string | null {
  return uringUnavailable();
}

const OPTION_NAMES: ReadonlySet<string> = new Set<keyof QueueOptions>(["capacity", "threads"]);

/**
 * A queue for this thread. It holds threads or descriptors until `destroy`.
 * @throws {UringUnavailableError} for "uring" if it cannot be used
 * @throws {TypeError} {RangeError} for another kind, or a number out of range
 */
export function createQueue(kind?: QueueKind | null, options?: QueueOptions | null): Queue {
  if (options != null) checkOptionsObject(options, OPTION_NAMES);
  const capacity = options?.capacity ?? DEFAULT_CAPACITY;
  const threads = options?.threads ?? Math.min(8, Math.max(2, availableParallelism()));
  checkInteger("threads", threads, 1, MAX_THREADS);
  switch (kind ?? "auto") {
    case "inline":
      return new InlineQueue(capacity);
    case "workers":
      return new WorkerQueue(capacity, threads);
    case "uring":
      return new UringQueue(capacity);
    case "auto":
      return uringUnavailable() === null
        ? new UringQueue(capacity)
        : new WorkerQueue(capacity, threads);
    default:
      throw new TypeError(
        `Expected kind to be "auto", "workers", "uring" or "inline", got ${showValue(kind)}`,
      );
  }
}
