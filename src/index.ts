/** pgalloc: page memory for Bun programs, with checkpoints that are restored in the background. */
export type { KindUsage, Usage } from "./accounting/usage.ts";
export type { SaveOptions, SaveReport } from "./checkpoint/save.ts";
export type { SaveProgress } from "./checkpoint/write-pages.ts";
export {
  CheckpointBusyError,
  CorruptCheckpointError,
  DestroyedError,
  EvictionError,
  type EvictionFailure,
  NotLoadedError,
  OutOfMemoryError,
  PressureUnavailableError,
  SeveralFilesError,
  SyscallError,
  TooManyThreadsError,
  UnsupportedError,
} from "./errors.ts";
export type { DelayedEviction, EvictableMemoryUser, EvictionTrigger } from "./eviction/evictions.ts";
export type { PressureThreshold } from "./eviction/pressure-file.ts";
export type { EvictableRange } from "./eviction/range-list.ts";
export { FileRange, type RangeLike } from "./file-range.ts";
export { UringUnavailableError } from "./aio/queue.ts";
export type { LoadQueue } from "./load/choose-queue.ts";
export type { LoadStats } from "./load/loader.ts";
export type { ViewConstructor } from "./mapping/views.ts";
export { MemoryFile } from "./memory-file.ts";
export type { AllocateOptions, AllocationMode, LoadOptions, MemoryFileHandle, MemoryFileOptions } from "./options.ts";
export {
  CheckpointFiles,
  type LoadAllOptions,
  type LoadAllProgress,
  loadAll,
  type SaveAllOptions,
  saveAll,
} from "./save-all.ts";
export { FileFailedError } from "./shared/lock.ts";
export { ThreadDiedError, WorkerNotFoundError } from "./threads/errors.ts";
export { CHUNK_SIZE, HUGE_PAGE_SIZE, MemoryKind, PAGE_SIZE } from "./units.ts";
