/** Opens the checkpoint of a place to restore it: a directory, or a remote place. */
import { openCheckpoint } from "../checkpoint/directory.ts";
import type { DecodedManifest } from "../checkpoint/decode.ts";
import type { S3Options } from "../http/s3-options.ts";
import { openRemoteCheckpoint } from "../remote/open-checkpoint.ts";
import { isRemote, openPlace } from "../remote/place.ts";
import type { PageSource } from "../source/description.ts";
import { fileSource } from "../source/file-source.ts";
import { releaseSource } from "../source/describe.ts";

export interface OpenedCheckpoint {
  readonly manifest: DecodedManifest;
  /** Held once. */
  readonly source: PageSource;
  /** Ends what this thread does for the source: nothing of it is needed any more. */
  close(): void;
}

export interface OpenOptions {
  readonly s3?: S3Options | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Opens a directory before it returns.
 *
 * @throws {NoCheckpointError} {CorruptCheckpointError} {SyscallError} {RemoteError}
 */
export function openCheckpointAt(
  where: string,
  options: OpenOptions,
): OpenedCheckpoint | Promise<OpenedCheckpoint> {
  if (isRemote(where)) return openRemote(where, options);
  const { manifest, contents } = openCheckpoint(where);
  return { manifest, source: fileSource(contents), close: () => undefined };
}

async function openRemote(where: string, { s3, signal }: OpenOptions): Promise<OpenedCheckpoint> {
  const place = await openPlace(where, { s3 });
  try {
    signal?.throwIfAborted();
    const { manifest, contents } = await openRemoteCheckpoint(place);
    signal?.throwIfAborted();
    const { signing, counters } = place;
    return {
      manifest,
      source: { kind: "remote", contents, signing, counters },
      close: () => place.close(),
    };
  } catch (error) {
    place.close();
    throw error;
  }
}

/** Gives an opened checkpoint back that is not restored. */
export function closeOpened({ source, close }: OpenedCheckpoint): void {
  releaseSource(source);
  close();
}

/**
 * The contents of the checkpoint at a place, as a page source: content 0 is the manifest, 1 and up
 * are its page files in the manifest's order.
 *
 * @throws as `openCheckpointAt`
 */
export async function openSource(where: string, options: OpenOptions = {}): Promise<PageSource> {
  return (await openCheckpointAt(where, options)).source;
}
