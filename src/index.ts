/** pgalloc: page memory for Bun programs, with checkpoints that are restored in the background. */
export type { KindUsage, Usage } from "./accounting/usage.ts";
export type { SaveOptions, SaveReport } from "./save/save.ts";
export type { SaveProgress } from "./save/options.ts";
export {
  CheckpointBusyError,
  CodecUnavailableError,
  CorruptCheckpointError,
  type CorruptionDetails,
  DestroyedError,
  EvictionError,
  type EvictionFailure,
  InvariantError,
  NoCheckpointError,
  NotCheckpointError,
  NotLoadedError,
  NotMemoryError,
  OutOfMemoryError,
  PageReadError,
  PathInUseError,
  type PgallocErrorCode,
  PressureUnavailableError,
  ReadOnlyError,
  SeveralFilesError,
  StopTimeoutError,
  SyscallError,
  TooManyThreadsError,
  UnsupportedError,
} from "./errors/errors.ts";
export {
  CheckpointConflictError,
  RemoteError,
  type RemoteFailure,
} from "./errors/remote-errors.ts";
export type {
  DelayedEviction,
  EvictableMemoryUser,
  EvictionTrigger,
} from "./eviction/evictions.ts";
export type { PressureThreshold } from "./eviction/pressure-file.ts";
export type { EvictableRange } from "./eviction/range-list.ts";
export { FileRange, type RangeLike } from "./pages/range.ts";
export { UringUnavailableError } from "./aio/queue.ts";
export type { LoadQueue } from "./source/file-source.ts";
export type { LoadStats } from "./load/load-stats.ts";
export type { ViewConstructor } from "./memory/views.ts";
export { type CheckpointEveryOptions, MemoryFile } from "./file/memory-file.ts";
export type { PeriodicOptions, PeriodicSaves } from "./file/periodic-saves.ts";
export type { HistogramSnapshot } from "./control/counters.ts";
export type {
  FileMetrics,
  LoadMetrics,
  MemoryMetrics,
  RequestMetrics,
  SaveMetrics,
} from "./metrics/metrics.ts";
export type { ServeMapOptions, MapServer } from "./map/serve.ts";
export { serveMap } from "./map/serve-map.ts";
export { type MetricsSource, prometheus } from "./metrics/prometheus.ts";
export type {
  AllocateOptions,
  AllocationMode,
  CacheOptions,
  AttachOptions,
  LoadOptions,
  MemoryFileHandle,
  MemoryFileOptions,
  OpenOptions,
} from "./core/options.ts";
export {
  CheckpointFiles,
  type LoadAllOptions,
  type LoadAllProgress,
  loadAll,
  type SaveAllOptions,
  saveAll,
} from "./file/several.ts";
export type { CredentialProvider, Credentials } from "./http/credentials.ts";
export type { S3Options } from "./http/s3-options.ts";
export { openSource } from "./restore/open-place.ts";
export { FileFailedError } from "./control/lock.ts";
export { ThreadDiedError, ThreadLimitError, WorkerNotFoundError } from "./threads/errors.ts";
export { terminateIdleThreads } from "./threads/idle.ts";
export { CHUNK_SIZE, HUGE_PAGE_SIZE, MemoryKind, PAGE_SIZE } from "./pages/units.ts";
