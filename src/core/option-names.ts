/**
 * The names of all options of the library. A name that is nearly one of them is a mistake and is
 * refused; others are ignored, because programs pass objects with options of their own.
 */
import { checkOptionsObject } from "../../ffi/index.ts";

/** test/file/option-names.test.ts compares it with the types. */
export const OPTION_NAMES = [
  // Of a new file.
  ...["name", "limitBytes", "path", "mode", "expectHugepages", "adviseHugepage"],
  ...["adviseNoHugepage", "delayedEviction", "checks", "memoryPressure", "stallMs", "windowMs"],
  // Of an allocation.
  ...["kind", "group", "huge", "direction", "fill"],
  // Of loads and waits.
  ...["background", "signal", "onProgress", "queue", "workingSet", "mapped", "verify", "cache"],
  ...["directory", "maxBytes", "offline", "create", "readOnly", "fileOptions"],
  // Of saves.
  ...["userData", "consistent", "incremental", "compression", "targetPauseMs", "pauseMemoryBytes"],
  ...["stopTimeoutMs", "excludeCommittedZeroPages", "fileUserData", "onSave", "onError"],
  ...["foreignKind"],
  // Of stores and maps.
  ...["checkpointEveryMs", "onCheckpointError", "now", "key", "maxEntries", "ttlMs"],
  // Of S3.
  ...["s3", "endpoint", "region", "pathStyle", "accessKeyId", "secretAccessKey"],
  ...["sessionToken", "credentials"],
  // Of the page map.
  ...["port", "hostname", "title"],
] as const;

const names: ReadonlySet<string> = new Set(OPTION_NAMES);

/**
 * Checks the object, not its values. @throws {TypeError} for anything else, and for a name that is
 * nearly an option's
 */
export function requireOptions(options: unknown): asserts options is object {
  checkOptionsObject(options, names);
}
