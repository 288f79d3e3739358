/** Opens the checkpoint of a place to restore it: a directory, or a remote place. */
import { type OpenCheckpoint, openCheckpoint } from "../checkpoint/directory.ts";
import { type CacheOptions, type Nullable, readOptions } from "../core/options.ts";
import type { DecodedManifest } from "../checkpoint/decode.ts";
import { isS3Url, parseS3Place, type S3Options, type S3Place } from "../http/s3-options.ts";
import { type CacheFill, warnOfCache } from "../remote/cache-fill.ts";
import type { RemoteCheckpoint } from "../remote/open-checkpoint.ts";
import {
  isRemote,
  openPlace,
  openUnlessAborted,
  resolvePlace,
  type RemotePlace,
  placeUrl,
} from "../remote/place.ts";
import type { PageSource } from "../source/description.ts";
import { fileSource } from "../source/file-source.ts";
import { releaseSource } from "../source/describe.ts";
import { checkCache, currentVersion, openCached, openOffline, versionOf } from "./open-cached.ts";
import { openToLoad } from "./open-to-load.ts";

export interface OpenedCheckpoint {
  readonly manifest: DecodedManifest;
  /** Indexed by file: checksums of its pages that are known already. */
  readonly checksums?: readonly (Uint32Array | null)[];
  /** Held once. */
  readonly source: PageSource;
  /** The place in S3 that the checkpoint is from, also if a cache has it; null for others. */
  readonly s3Place: S3Place | null;
  /** Distinguishes the checkpoints of a remote place (`isNewest`); null for directories. */
  readonly version: string | null;
  /** The load fills a cache, and `close` completes it. */
  readonly isCaching: boolean;
  /**
   * Called when no thread reads any more. `isLoaded`: the source is not needed any more. Does not
   * reject.
   */
  close(isLoaded: boolean): Promise<void>;
}

export interface OpenPlaceOptions {
  readonly s3?: S3Options | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly cache?: string | CacheOptions | undefined;
  /** True: the opening does not wait for another load that fills the same cache. */
  readonly background?: boolean | undefined;
}

/**
 * Opens a directory before it returns.
 *
 * @throws {NoCheckpointError} {CorruptCheckpointError} {SyscallError} {RemoteError}
 */
export function openCheckpointAt(
  where: string,
  options: OpenPlaceOptions,
): OpenedCheckpoint | Promise<OpenedCheckpoint> {
  if (isRemote(where)) {
    const open = (signal: AbortSignal | undefined) => openRemote(where, options, signal);
    return openUnlessAborted(options.signal, open, closeOpened);
  }
  return openLocal(openCheckpoint(where), null);
}

function openLocal(
  { manifest, contents }: OpenCheckpoint,
  s3Place: S3Place | null,
  version: string | null = null,
): OpenedCheckpoint {
  const source = fileSource(contents);
  return { manifest, source, s3Place, version, isCaching: false, close: async () => undefined };
}

/**
 * True if the newest checkpoint of a remote place is that of `version`, by one small request.
 *
 * @throws {RemoteError} and as `openPlace`
 */
export function isNewest(
  where: string,
  { s3, signal }: OpenPlaceOptions,
  version: string,
): Promise<boolean> {
  const ask = async (opening: AbortSignal | undefined) => {
    const place = await openPlace(where, { s3, signal: opening });
    try {
      return (await currentVersion(place)) === version;
    } finally {
      place.close();
    }
  };
  return openUnlessAborted(signal, ask, () => undefined);
}

/** `signal` is for the requests until it is open. */
async function openRemote(
  where: string,
  options: OpenPlaceOptions,
  signal: AbortSignal | undefined,
): Promise<OpenedCheckpoint> {
  const { s3 } = options;
  const cache = checkCache(options.cache);
  if (cache?.offline === true) {
    const s3Place = isS3Url(where) ? parseS3Place(where, s3) : null;
    return openLocal(openOffline(placeUrl(where), cache), s3Place);
  }
  const place = await openPlace(where, { s3, signal });
  try {
    signal?.throwIfAborted();
    const found =
      cache === undefined
        ? { remote: await openToLoad(place), fill: null }
        : await openCached(place, cache, { waits: options.background !== true, signal });
    if ("local" in found) {
      place.close();
      return openLocal(found.local, place.bucket?.place ?? null, found.version);
    }
    return remoteCheckpoint(place, found.remote, found.fill);
  } catch (error) {
    place.close();
    throw error;
  }
}

function remoteCheckpoint(
  place: RemotePlace,
  remote: RemoteCheckpoint,
  fill: CacheFill | null,
): OpenedCheckpoint {
  const { manifest, contents, checksums } = remote;
  const { signing, counters, bucket } = place;
  const cache = fill?.files ?? null;
  return {
    manifest,
    checksums,
    source: { kind: "remote", contents, signing, counters, cache },
    s3Place: bucket?.place ?? null,
    version: versionOf(remote),
    isCaching: fill !== null,
    close: async (isLoaded) => {
      try {
        if (isLoaded) await fill?.commit();
        else fill?.abandon();
      } catch (error) {
        warnOfCache(error);
      } finally {
        if (isLoaded) place.close();
      }
    },
  };
}

/** Closes an opened checkpoint that is not restored. */
export function closeOpened({ source, close }: OpenedCheckpoint): void {
  releaseSource(source);
  void close(false);
}

/**
 * The contents of the checkpoint at a place, as a page source: content 0 is the manifest, 1 and up
 * are its page files in the manifest's order.
 *
 * @throws as `openCheckpointAt`
 */
export async function openSource(
  where: string,
  options?: Nullable<OpenPlaceOptions> | null,
): Promise<PageSource> {
  const place = resolvePlace(where);
  return (await openCheckpointAt(place, readOptions<OpenPlaceOptions>(options))).source;
}
