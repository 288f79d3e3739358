/** Options of a MemoryFile's methods, and their checks. `null` for an option means absent. */
import {
  checkBoolean,
  checkFunction,
  checkInteger,
  showValue,
  uringUnavailable,
} from "../../ffi/index.ts";
import { UringUnavailableError } from "../aio/queue.ts";
import type { DelayedEviction } from "../eviction/evictions.ts";
import { DEFAULT_THRESHOLD, type PressureThreshold } from "../eviction/pressure-file.ts";
import type { S3Options } from "../http/s3-options.ts";
import type { LoadStats } from "../load/load-stats.ts";
import type { LoadHandle } from "../load/load-tables.ts";
import type { LoadQueue } from "../source/file-source.ts";
import { HUGE_PAGE_SIZE, MAX_GROUP, MAX_KIND, PAGE_SIZE } from "../pages/units.ts";
import { requireOptions } from "./option-names.ts";
import { checkSignal } from "./wait.ts";

/** How pages are committed when they are allocated. */
export type AllocationMode =
  /** Pages are uncommitted; the kernel provides memory when they are touched. The default. */
  | "uncommitted"
  /**
   * The caller will commit every page, but not through the file's mapping. Pages may be recycled,
   * and are committed then.
   */
  | "callerIndirectCommit"
  /** Pages are committed when `allocate` returns. */
  | "commit"
  /**
   * Pages are committed and mapped for writing when `allocate` returns, if the kernel can do so.
   */
  | "writePopulate";

export interface AllocateOptions {
  /**
   * The kind that the memory is accounted to: a MemoryKind or the program's own, 0 to 255. Default:
   * Anonymous.
   */
  readonly kind?: number | undefined;
  /** Accounting group, 0 to 2^32 - 1. Default: 0, no group. */
  readonly group?: number | undefined;
  readonly mode?: AllocationMode | undefined;
  /**
   * Place the range in memory meant for huge pages. Its length must be a multiple of
   * HUGE_PAGE_SIZE.
   */
  readonly huge?: boolean | undefined;
  readonly direction?: "bottomUp" | "topDown" | undefined;
  /**
   * Fills the new pages. It is called with the part that is not filled yet, and returns how many
   * bytes it wrote, or 0 at the end of its data. Pages after the last whole page that it filled
   * are released, and the returned range is shorter.
   */
  readonly fill?: ((destination: Uint8Array) => number) | undefined;
}

export interface MemoryFileOptions {
  /** Shown in /proc/PID/maps. Default: "pgalloc". */
  readonly name?: string | undefined;
  /**
   * The most bytes that may be in use at once, up to 1 TiB. Default: the address space that the
   * file reserves, 256 GiB, or less where the process has hundreds of files or little address space
   * (`ulimit -v`). A small limit reserves little.
   */
  readonly limitBytes?: number | undefined;
  /**
   * A file on disk to hold the memory. It is created, or emptied if a MemoryFile made it. Default:
   * anonymous memory. The file is locked while the MemoryFile lives: no other MemoryFile can use
   * it.
   *
   * If the disk may become full, allocate with `mode: "commit"`, which then throws ENOSPC. Two
   * things kill the process: touching a page for which the disk has no room, and touching a page
   * that another program has cut off the file. Neither can happen with anonymous memory.
   */
  readonly path?: string | undefined;
  /** Permissions of the file at `path` if it is created, less the umask. Default: 0o600. */
  readonly mode?: number | undefined;
  /** Keep allocations with `huge` apart from others. Default: false, `huge` is ignored then. */
  readonly expectHugepages?: boolean | undefined;
  /** madvise(MADV_HUGEPAGE) for chunks of huge allocations. */
  readonly adviseHugepage?: boolean | undefined;
  /** madvise(MADV_NOHUGEPAGE) for chunks of other allocations. */
  readonly adviseNoHugepage?: boolean | undefined;
  /**
   * When evictable memory is evicted: "enabled" when the host is short of memory (see
   * `evictionTrigger`) or limitBytes is near, "disabled" at once, "manual" when `startEvictions` is
   * called. Default: "enabled".
   */
  readonly delayedEviction?: DelayedEviction | undefined;
  /**
   * Catch mistakes with freed pages: their views end, the pages are filled with 0xDB, and messages
   * name the first drop. For tests: it takes time and memory. Default: PGALLOC_CHECKS=1 in the
   * environment.
   */
  readonly checks?: boolean | undefined;
  /**
   * When the host counts as short of memory. Default: tasks waited for memory for 150 ms within
   * 2,000 ms.
   */
  readonly memoryPressure?: PressureThreshold | undefined;
}

export interface AttachOptions {
  /** This thread only reads, and saves never stop it. Default: false. */
  readonly readOnly?: boolean | undefined;
}

/** A directory that keeps a remote checkpoint on this machine. */
export interface CacheOptions {
  readonly directory: string;
  /** Larger checkpoints are not cached. Default: no limit. */
  readonly maxBytes?: number | undefined;
  /** Use the cached checkpoint and make no request. Default: false. */
  readonly offline?: boolean | undefined;
}

export interface LoadOptions extends MemoryFileOptions {
  /** Return once the metadata is read, and load while the program runs. Default: false. */
  readonly background?: boolean | undefined;
  /** Ends the load. Loaded pages stay; present and later waiters get the signal's reason. */
  readonly signal?: AbortSignal | undefined;
  /** Called from time to time, and once when all is loaded. If it throws, the load ends. */
  readonly onProgress?: ((progress: LoadStats) => void) | undefined;
  readonly queue?: LoadQueue | undefined;
  /**
   * The place of the working set, for a load in the background: the pages that the program uses
   * first, recorded at each start, so that the next start reads them first. A path, or false for
   * none. Default: the file "working-set" in the checkpoint's directory; none for a remote place.
   */
  readonly workingSet?: string | false | undefined;
  /**
   * Map page files privately instead of copying them: contents come from the page cache, which all
   * processes share, and a write copies its page. Contents that cannot be mapped (compressed,
   * remote, or in too many pieces) are copied. Default: false.
   */
  readonly mapped?: boolean | undefined;
  /**
   * With `mapped`: check each page before it is handed out. If false, all mapped pages are
   * available at once, and damage is not noticed. Default: true.
   */
  readonly verify?: boolean | undefined;
  /** Access to S3, for `s3://` URLs. Default: the AWS_* variables. */
  readonly s3?: S3Options | undefined;
  /**
   * A directory of this machine that keeps the checkpoint of a remote place: the load fills it, and
   * the next start reads from it if it is still the newest. Default: none.
   */
  readonly cache?: string | CacheOptions | undefined;
}

export interface OpenOptions extends LoadOptions {
  /** Make an empty file if there is no checkpoint. Default: false. */
  readonly create?: boolean | undefined;
}

/** The result of `share()`. structuredClone and postMessage can copy it. */
export interface MemoryFileHandle {
  readonly kind: "pgalloc.MemoryFile";
  readonly name: string;
  readonly control: SharedArrayBuffer;
  readonly userData: Uint8Array | null;
  readonly load: LoadHandle | null;
}

/** Options as a program may pass them: `null` means absent. */
export type Nullable<T> = { readonly [K in keyof T]: T[K] | null };

/**
 * The options as plain data. Each property is read once, during the call; `null` means absent.
 *
 * @throws {TypeError} unless they are an object, null or undefined, or for a misspelled name
 */
export function readOptions<T extends object>(options: Nullable<T> | null | undefined): T {
  const read: Record<string, unknown> = {};
  if (options != null) requireOptions(options);
  for (const key of keysOf(options ?? {})) {
    const value = (options as Record<string, unknown>)[key];
    if (value === null) continue;
    read[key] = NESTED.has(key) && typeof value === "object" ? readOptions(value) : value;
  }
  return read as T;
}

/** Options that have options of their own. */
const NESTED: ReadonlySet<string> = new Set(["cache", "memoryPressure", "s3"]);

/** @throws {TypeError} {RangeError} unless it is absent, or permissions of a file */
export function checkMode(mode: number | undefined): void {
  if (mode !== undefined) checkInteger("mode", mode, 0, 0o777);
}

/** The names of an object's properties, inherited and hidden ones included. */
function keysOf(object: object): Set<string> {
  const keys = new Set<string>();
  for (let at: object | null = object; at !== null && at !== Object.prototype; ) {
    for (const key of Object.getOwnPropertyNames(at)) if (key !== "constructor") keys.add(key);
    at = Object.getPrototypeOf(at) as object | null;
  }
  return keys;
}

const MODES: readonly string[] = ["uncommitted", "callerIndirectCommit", "commit", "writePopulate"];

export const checkLength = (lengthBytes: number, huge: boolean): void => {
  const unit = huge ? HUGE_PAGE_SIZE : PAGE_SIZE;
  if (typeof lengthBytes !== "number")
    throw new TypeError(`Expected lengthBytes to be a number, got ${showValue(lengthBytes)}`);
  if (!Number.isSafeInteger(lengthBytes) || lengthBytes < unit || lengthBytes % unit !== 0)
    throw new RangeError(
      `Expected lengthBytes to be a positive multiple of ${unit}, got ${lengthBytes}`,
    );
};

export const isTopDown = (direction: string | null | undefined): boolean => {
  if (direction == null || direction === "bottomUp") return false;
  if (direction === "topDown") return true;
  throw new TypeError(
    `Expected direction to be "bottomUp" or "topDown", got ${showValue(direction)}`,
  );
};

/** @throws {TypeError} for options of a mapped restore that contradict each other */
function checkMapped({
  mapped,
  verify,
  path,
}: Pick<LoadOptions, "mapped" | "verify" | "path">): void {
  checkBoolean("mapped", mapped);
  checkBoolean("verify", verify);
  if (mapped === true && path !== undefined)
    throw new TypeError("Cannot map page files over a file on disk: leave out mapped or path");
}

/**
 * @throws {TypeError} for another queue
 * @throws {UringUnavailableError} for "uring" if it cannot be used
 */
function checkQueue(queue: string | null | undefined): void {
  if (queue == null || queue === "auto" || queue === "workers" || queue === "inline") return;
  if (queue !== "uring") {
    throw new TypeError(
      `Expected queue to be "auto", "workers", "uring" or "inline", got ${showValue(queue)}`,
    );
  }
  const reason = uringUnavailable();
  if (reason !== null) throw new UringUnavailableError(reason);
}

/**
 * Checks the options that loads and saves share.
 * @throws {TypeError} for a value of another type
 * @throws the signal's reason
 */
export function checkWatchers({
  signal,
  onProgress,
}: {
  signal?: unknown;
  onProgress?: unknown;
}): void {
  if (onProgress != null) checkFunction("onProgress", onProgress);
  checkSignal(signal);
}

/**
 * Checks the options that all loads share.
 * @throws {TypeError}
 * @throws {UringUnavailableError} for the queue "uring" if it cannot be used
 * @throws the signal's reason
 */
export function checkLoadOptions(options: LoadOptions): void {
  checkWatchers(options);
  checkBoolean("background", options.background);
  checkQueue(options.queue);
  checkMapped(options);
}

/** User data of a save: bytes, a function that returns them at the instant, or none. */
export type UserData = Uint8Array | (() => Uint8Array) | null;

/**
 * A copy, so the program may change its bytes during the save. A function's bytes are checked and
 * copied when it is called. @throws {TypeError}
 */
export function copyUserData(
  name: string,
  userData: Uint8Array | (() => Uint8Array) | null | undefined,
): UserData {
  if (userData == null) return null;
  if (typeof userData === "function") return () => copyBytes(`result of ${name}`, userData());
  return copyBytes(name, userData);
}

function copyBytes(name: string, bytes: Uint8Array): Uint8Array {
  if (!(bytes instanceof Uint8Array))
    throw new TypeError(`Expected ${name} to be a Uint8Array, got ${showValue(bytes)}`);
  return new Uint8Array(bytes);
}

/** @throws {TypeError} {RangeError} */
export const checkAllocation = (mode: AllocationMode, kind: number, group: number): void => {
  if (mode !== "uncommitted" && !MODES.includes(mode))
    throw new TypeError(`Expected mode to be one of ${MODES.join(", ")}, got ${showValue(mode)}`);
  checkInteger("kind", kind, 0, MAX_KIND);
  checkInteger("group", group, 0, MAX_GROUP);
};

/** The values of an iterable, or the one value. */
export function toList<T>(given: T | Iterable<T>): T[] {
  const isList = typeof given === "object" && given !== null && Symbol.iterator in given;
  return isList ? [...given] : [given as T];
}

/** The groups as a set, or undefined for all. @throws {TypeError} {RangeError} */
export function checkGroups(groups: Iterable<number> | undefined): ReadonlySet<number> | undefined {
  if (groups === undefined) return undefined;
  if (
    groups === null ||
    typeof groups !== "object" ||
    typeof groups[Symbol.iterator] !== "function"
  ) {
    throw new TypeError(`Expected groups to be an iterable of numbers, got ${showValue(groups)}`);
  }
  const set = new Set(groups);
  for (const group of set) checkInteger("group", group, 0, MAX_GROUP);
  return set;
}

/** The options about eviction, checked and complete. @throws {TypeError} {RangeError} */
export function checkEviction(options: MemoryFileOptions): {
  delayedEviction: DelayedEviction;
  threshold: PressureThreshold;
} {
  const delayedEviction = options.delayedEviction ?? "enabled";
  if (!["enabled", "disabled", "manual"].includes(delayedEviction)) {
    const got = showValue(delayedEviction);
    throw new TypeError(
      `Expected delayedEviction to be "enabled", "disabled" or "manual", got ${got}`,
    );
  }
  const { windowMs, stallMs } = options.memoryPressure ?? DEFAULT_THRESHOLD;
  checkInteger("memoryPressure.windowMs", windowMs, 500, 10_000);
  checkInteger("memoryPressure.stallMs", stallMs, 1, windowMs);
  return { delayedEviction, threshold: { windowMs, stallMs } };
}
