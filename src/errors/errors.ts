/** The library's own errors, each with a stable `code`, and the operating system's. */
export { SyscallError, UnsupportedError } from "../../ffi/index.ts";
export {
  CheckpointBusyError,
  CodecUnavailableError,
  CorruptCheckpointError,
  type CorruptionDetails,
  NoCheckpointError,
  NotCheckpointError,
  PageReadError,
  PauseMemoryError,
  SeveralFilesError,
} from "./checkpoint.ts";
export type { PgallocErrorCode } from "./codes.ts";
export { EvictionError, type EvictionFailure, PressureUnavailableError } from "./eviction.ts";
export { assert, checksStructures, InvariantError } from "./invariant.ts";
export {
  DestroyedError,
  NotLoadedError,
  NotMemoryError,
  OutOfMemoryError,
  PathInUseError,
  TooManyThreadsError,
} from "./memory.ts";
export { ReadOnlyError, StopTimeoutError } from "./stops.ts";
