/**
 * pgalloc/aio: queues of reads and writes on native memory, and the coalescing of many small ones.
 */
export {
  type CoalesceLimits,
  coalesce,
  MAX_TRANSFER_BYTES,
  type Operations,
  type Pieces,
} from "./coalesce.ts";
export {
  createQueue,
  type QueueKind,
  type QueueOptions,
  uringUnavailableReason,
} from "./create-queue.ts";
export { type Completions, type Queue, QueueBusyError, UringUnavailableError } from "./queue.ts";
