/**
 * Opens a remote checkpoint through a local cache. If the cache has the place's newest checkpoint,
 * one small request confirms it, and nothing else is fetched. If not, the following load fills the
 * cache.
 */
import { resolve } from "node:path";
import { checkBoolean, showValue } from "../../ffi/index.ts";
import { closeContents, type OpenCheckpoint, openCheckpoint } from "../checkpoint/directory.ts";
import { type CacheOptions, readOptions } from "../core/options.ts";
import { CorruptCheckpointError, NoCheckpointError } from "../errors/errors.ts";
import { RemoteError } from "../errors/remote-errors.ts";
import { CacheFill } from "../remote/cache-fill.ts";
import { readOrigin } from "../remote/cache-origin.ts";
import { fillHasEnded } from "../remote/cache-wait.ts";
import { newestPublished, type Published } from "../remote/manifests.ts";
import type { RemoteCheckpoint } from "../remote/open-checkpoint.ts";
import { hasScheme, type RemotePlace } from "../remote/place.ts";
import { getStart, type ObjectIdentity } from "../http/range.ts";
import { openToLoad } from "./open-to-load.ts";

/** The same with an absolute path. @throws {TypeError} {RangeError} */
export function checkCache(cache: string | CacheOptions | undefined): CacheOptions | undefined {
  if (cache == null) return undefined;
  if (typeof cache !== "string" && typeof cache !== "object")
    throw new TypeError(
      `Expected cache to be a directory, or { directory }, got ${showValue(cache)}`,
    );
  const options = typeof cache === "string" ? { directory: cache } : readOptions(cache);
  const { directory, maxBytes, offline } = options;
  if (typeof directory !== "string" || directory === "" || hasScheme(directory))
    throw new TypeError(`Expected cache to be a directory, got ${showValue(directory)}`);
  if (typeof (maxBytes ?? 0) !== "number")
    throw new TypeError(`Expected cache.maxBytes to be a number, got ${showValue(maxBytes)}`);
  if (!((maxBytes ?? 0) >= 0))
    throw new RangeError(`Expected cache.maxBytes to be 0 or more, got ${showValue(maxBytes)}`);
  checkBoolean("cache.offline", offline);
  return { ...options, directory: resolve(directory) };
}

/**
 * The cache's checkpoint, whatever the place has.
 * @throws {NoCheckpointError} if it has none of the place
 */
export function openOffline(url: string, { directory }: CacheOptions): OpenCheckpoint {
  const origin = readOrigin(directory);
  if (origin?.url !== url)
    throw new NoCheckpointError(directory, undefined, { why: `the cache has none of ${url}` });
  return openCheckpoint(directory);
}

export type CachedCheckpoint =
  | { readonly local: OpenCheckpoint; readonly version: string }
  | { readonly remote: RemoteCheckpoint; readonly fill: CacheFill | null };

/**
 * `waits`: for another load that fills the cache. Otherwise this one reads beside it.
 *
 * @throws as `openRemoteCheckpoint`
 * @throws {SyscallError} for the cache's directory
 * @throws the signal's reason
 */
export async function openCached(
  place: RemotePlace,
  cache: CacheOptions,
  { waits, signal }: { readonly waits: boolean; readonly signal: AbortSignal | undefined },
): Promise<CachedCheckpoint> {
  for (let mayWait = waits; ; ) {
    const local = await openIfCurrent(place, cache.directory);
    if (local !== undefined) return local;
    const remote = await openToLoad(place);
    const fill = beginFill(place, cache, remote);
    if (fill !== "busy") return { remote, fill };
    if (!mayWait) return { remote, fill: null };
    mayWait = await fillHasEnded(cache.directory, signal);
  }
}

async function openIfCurrent(
  place: RemotePlace,
  directory: string,
): Promise<CachedCheckpoint | undefined> {
  const origin = readOrigin(directory);
  if (origin?.url !== place.url || (await currentVersion(place)) !== origin.version)
    return undefined;
  const local = openIfWhole(directory, origin.id);
  return local === undefined ? undefined : { local, version: origin.version };
}

function beginFill(
  place: RemotePlace,
  { directory, maxBytes = Number.POSITIVE_INFINITY }: CacheOptions,
  remote: RemoteCheckpoint,
): CacheFill | "busy" | null {
  const { url } = place;
  return CacheFill.begin({
    directory,
    maxBytes,
    place,
    checkpoint: remote,
    origin: { url, version: versionOf(remote), id: remote.manifest.id },
  });
}

/** The version of a place without a checkpoint. */
const NO_VERSION = "none";

/** The place's newest version, by one small request. */
export async function currentVersion(place: RemotePlace): Promise<string> {
  await place.ready();
  if (place.bucket !== null) {
    const newest = await newestPublished(place.bucket);
    return newest === undefined ? NO_VERSION : versionOfPublished(newest);
  }
  try {
    const { identity } = await getStart(place.client, place.fileUrl("meta"), 1);
    return versionOfFile(identity);
  } catch (error) {
    if (error instanceof RemoteError && error.failure === "missing") return NO_VERSION;
    throw error;
  }
}

/** Distinguishes the checkpoint from others of its place. */
export function versionOf({ published, contents }: RemoteCheckpoint): string {
  return published === null ? versionOfFile(contents[0]!.identity) : versionOfPublished(published);
}

function versionOfFile({ etag, modified }: ObjectIdentity): string {
  return `etag ${etag ?? modified}`;
}

/** Sequences begin again in another store of the same name, so they do not tell all. */
function versionOfPublished({ sequence, etag }: Published): string {
  return `sequence ${sequence}, etag ${etag}`;
}

/** Undefined if the directory has another checkpoint, or a damaged one. */
function openIfWhole(directory: string, id: bigint): OpenCheckpoint | undefined {
  let opened: OpenCheckpoint;
  try {
    opened = openCheckpoint(directory);
  } catch (error) {
    if (error instanceof CorruptCheckpointError || error instanceof NoCheckpointError)
      return undefined;
    throw error;
  }
  if (opened.manifest.id === id) return opened;
  closeContents(opened.contents);
  return undefined;
}
