/** The options of a save, and its report. Options are checked and resolved during the call. */
import type { Compression } from "../codec/codec.ts";
import { codecFor, isCompression } from "../codec/open-codec.ts";
import type { ChangeDetection } from "../changes/tracker.ts";
import { checkLimit } from "../checkpoint/limits.ts";
import { checkMode, checkWatchers, copyUserData, type UserData } from "../core/options.ts";
import type { FileCore } from "../core/core.ts";
import { checkBoolean, checkInteger, showValue } from "../../ffi/index.ts";
import type { S3Options } from "../http/s3-options.ts";
import { isRemote } from "../remote/place.ts";

/** Bytes of page contents. */
export interface SaveProgress {
  readonly writtenBytes: number;
  /**
   * The most that there is to write. It shrinks as zero and unchanged pages are found. Exact at the
   * end.
   */
  readonly totalBytes: number;
}

export interface SaveOptions {
  /**
   * Stored beside the pages and returned as `userData`: the program's roots, its index. A function
   * is called at the instant that the checkpoint shows. It is synchronous and must not wait.
   */
  readonly userData?: Uint8Array | (() => Uint8Array) | undefined;
  /**
   * The checkpoint shows one instant: memory, references and user data belong together. Threads
   * that use the file stop for some milliseconds. If false, it shows each page at some moment of
   * the save. Default: true.
   */
  readonly consistent?: boolean | undefined;
  /** Do not write contents again that the checkpoint at the destination has. Default: true. */
  readonly incremental?: boolean | undefined;
  /** How page contents are stored. Default: "none" in directories, "zstd" in remote places. */
  readonly compression?: Compression | undefined;
  /**
   * Pages are copied in rounds while the program runs, until the rest can be copied in this time,
   * or stops shrinking. Default: 5.
   */
  readonly targetPauseMs?: number | undefined;
  /** The most that may be copied while the program is stopped. Default: 256 MiB. */
  readonly pauseMemoryBytes?: number | undefined;
  /** How long to wait for other threads to stop. Default: 1000. */
  readonly stopTimeoutMs?: number | undefined;
  /** For compatibility with gVisor. Zero pages are never stored, committed or not. */
  readonly excludeCommittedZeroPages?: boolean | undefined;
  /**
   * Permissions of new files in a directory, less the umask. Directories that the save makes may be
   * entered by users that may read the files. 0o644 lets other users' processes load. Default:
   * 0o600.
   */
  readonly mode?: number | undefined;
  /** Access to S3, if the destination is an `s3://` URL. Default: the AWS_* variables. */
  readonly s3?: S3Options | undefined;
  /** Ends the save. The destination is unchanged then. */
  readonly signal?: AbortSignal | undefined;
  /** Called from time to time with bytes of page contents. If it throws, the save ends. */
  readonly onProgress?: ((progress: SaveProgress) => void) | undefined;
}

/** The result of a save. Sizes in bytes, of all its files together. */
export interface SaveReport {
  readonly directory: string;
  /** The checkpoint's id: 16 hexadecimal digits. */
  readonly id: string;
  /**
   * True if the checkpoint that was there shows this instant already. It stays as it is, and `id`
   * is its id.
   */
  readonly isUnchanged: boolean;
  readonly isConsistent: boolean;
  /**
   * How long the program was stopped: from the first thread's stop until the last one continued.
   */
  readonly pauseMs: number;
  /** Copies while the program ran. The first one has all pages that may differ from the base. */
  readonly rounds: readonly RoundReport[];
  /** How changes during the save were found; "none" if all pages were copied at the instant. */
  readonly detection: ChangeDetection | "none";
  readonly usedBytes: number;
  /** Page contents in the checkpoint. */
  readonly pagesBytes: number;
  /** Bytes written to page files. */
  readonly writtenBytes: number;
  /** Page contents that were not written, because the previous checkpoint has them. */
  readonly reusedBytes: number;
  /** Committed memory that was not written because it was zero. */
  readonly zeroBytes: number;
  readonly metaBytes: number;
  readonly extents: number;
  /** Page files of the checkpoint. */
  readonly pageFiles: number;
  readonly compression: CompressionReport;
  readonly durationMs: number;
}

export interface RoundReport {
  /** Pages that were checked. */
  readonly pages: number;
  readonly durationMs: number;
}

/** The compressed part of this save's writes. */
export interface CompressionReport {
  readonly codec: Compression;
  readonly frames: number;
  /** The others are raw: compression would have saved less than 1/16. */
  readonly compressedFrames: number;
  readonly contentBytes: number;
  readonly storedBytes: number;
}

export interface SaveFile {
  /** Unique within the checkpoint. */
  readonly name: string;
  readonly core: FileCore;
  readonly userData: UserData;
}

/** The plan of a save: its options with defaults. */
export interface SavePlan {
  readonly files: readonly SaveFile[];
  /** A URL, or a directory's absolute path. */
  readonly place: string;
  readonly s3: S3Options | undefined;
  readonly userData: UserData;
  readonly isConsistent: boolean;
  readonly isIncremental: boolean;
  readonly compression: Compression;
  readonly targetPauseMs: number;
  readonly pauseMemoryBytes: number;
  readonly stopTimeoutMs: number;
  readonly mode: number | undefined;
  readonly signal: AbortSignal | undefined;
  readonly onProgress: SaveOptions["onProgress"];
}

const MIB = 2 ** 20;

/** @throws {TypeError} {RangeError} {CodecUnavailableError} */
export function planSave(
  files: readonly SaveFile[],
  userData: UserData,
  place: string,
  options: SaveOptions,
): SavePlan {
  const plan: SavePlan = {
    files,
    place,
    s3: options.s3 ?? undefined,
    userData,
    isConsistent: options.consistent ?? true,
    isIncremental: options.incremental ?? IS_INCREMENTAL,
    compression: options.compression ?? (isRemote(place) ? "zstd" : "none"),
    targetPauseMs: options.targetPauseMs ?? 5,
    pauseMemoryBytes: options.pauseMemoryBytes ?? 256 * MIB,
    stopTimeoutMs: options.stopTimeoutMs ?? 1000,
    mode: options.mode,
    signal: options.signal,
    onProgress: options.onProgress,
  };
  checkBoolean("consistent", plan.isConsistent);
  checkBoolean("incremental", plan.isIncremental);
  checkMode(plan.mode);
  checkInteger("targetPauseMs", plan.targetPauseMs, 1, 60_000);
  checkInteger("pauseMemoryBytes", plan.pauseMemoryBytes, 0, 2 ** 40);
  checkInteger("stopTimeoutMs", plan.stopTimeoutMs, 0, 3_600_000);
  if (!isCompression(plan.compression))
    throw new TypeError(
      `Expected compression to be "none", "lz4" or "zstd", got ${showValue(plan.compression)}`,
    );
  codecFor(plan.compression);
  checkLimit("files", "files", files.length);
  const given = [userData, ...files.map((file) => file.userData)];
  checkUserDataBytes(given.filter((data) => data instanceof Uint8Array));
  return plan;
}

/** Default of `incremental`. */
const IS_INCREMENTAL = true;

/** @throws {RangeError} if it is more than a load accepts */
export function checkUserDataBytes(all: readonly (Uint8Array | null)[]): void {
  const bytes = all.reduce((sum, data) => sum + (data?.byteLength ?? 0), 0);
  checkLimit("userDataBytes", "bytes of userData", bytes);
}

/**
 * Checks the options of saves that begin later. @throws {TypeError} {RangeError}
 * {CodecUnavailableError}
 */
export function checkSaveOptions(place: string, options: SaveOptions): void {
  const { userData } = options;
  if (!(userData instanceof Uint8Array)) copyUserData("userData", userData);
  checkWatchers({ onProgress: options.onProgress });
  planSave([], null, place, options);
}
