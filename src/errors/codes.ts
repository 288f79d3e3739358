/**
 * The codes of the library's own errors. They are stable. docs/errors.md lists the cause of each
 * and what to do. A SyscallError has the operating system's code instead.
 */
export const PGALLOC_ERROR_CODES = [
  "ENOMEM",
  "ERR_CHECKPOINT_BUSY",
  "ERR_CHECKPOINT_CONFLICT",
  "ERR_CODEC_UNAVAILABLE",
  "ERR_CORRUPT_CHECKPOINT",
  "ERR_CORRUPT_STORE",
  "ERR_DESTROYED",
  "ERR_DROPPED",
  "ERR_EVICTION",
  "ERR_FILE_FAILED",
  "ERR_INVARIANT",
  "ERR_NOT_CHECKPOINT",
  "ERR_NOT_LOADED",
  "ERR_NOT_MEMORY",
  "ERR_NO_CHECKPOINT",
  "ERR_PAGE_READ",
  "ERR_PATH_IN_USE",
  "ERR_PAUSE_MEMORY",
  "ERR_PRESSURE_UNAVAILABLE",
  "ERR_QUEUE_BUSY",
  "ERR_READ_ONLY",
  "ERR_READ_ONLY_STORE",
  "ERR_REMOTE",
  "ERR_SEVERAL_FILES",
  "ERR_STALE_HANDLE",
  "ERR_STOP_TIMEOUT",
  "ERR_STORE_BUSY",
  "ERR_THREAD_DIED",
  "ERR_THREAD_LIMIT",
  "ERR_TOO_MANY_THREADS",
  "ERR_UNSUPPORTED",
  "ERR_URING_UNAVAILABLE",
  "ERR_WORKER_NOT_FOUND",
  "ERR_WRONG_TYPE",
] as const;

/** `code` of an error class of this library. */
export type PgallocErrorCode = (typeof PGALLOC_ERROR_CODES)[number];
