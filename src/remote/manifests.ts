/** The manifests of a place in S3: finds them, reads a part of them, and publishes them. */
import type { Bucket, ListedObject } from "../http/bucket.ts";
import { getStart } from "../http/range.ts";
import { CheckpointConflictError, RemoteError } from "../errors/remote-errors.ts";
import { idOf } from "../checkpoint/header.ts";
import { HEADER_BYTES } from "../checkpoint/format.ts";
import { manifestKey, manifestPrefix, sequenceOf } from "./keys.ts";

/** A published checkpoint. */
export interface Published extends ListedObject {
  readonly sequence: number;
}

/** All published checkpoints, the newest first. */
export async function* listPublished(
  bucket: Bucket,
  options?: { readonly pageSize?: number },
): AsyncGenerator<Published> {
  for await (const object of bucket.list(manifestPrefix(bucket.place), options)) {
    const sequence = sequenceOf(bucket.place, object.key);
    if (sequence !== undefined) yield { ...object, sequence };
  }
}

/** The newest checkpoint of the place, by one request. Undefined if there is none. */
export async function newestPublished(bucket: Bucket): Promise<Published | undefined> {
  for await (const published of listPublished(bucket, { pageSize: 1 })) return published;
  return undefined;
}

/** The id of the checkpoint at a key; undefined if there is none. */
export async function idAt(bucket: Bucket, key: string): Promise<bigint | undefined> {
  try {
    const { bytes } = await getStart(bucket.client, bucket.url(key), HEADER_BYTES);
    return idOf(bytes);
  } catch (error) {
    if (error instanceof RemoteError && error.failure === "missing") return undefined;
    throw error;
  }
}

export interface Publication {
  /** The sequence after that of the checkpoint that the save found. */
  readonly sequence: number;
  readonly id: bigint;
  readonly manifest: Uint8Array;
}

/**
 * Publishes a manifest: at that instant its checkpoint becomes the place's. Precondition: all its
 * page files are complete.
 *
 * A lost answer proves nothing, and the store refuses a retry of a request that succeeded. So after
 * any result but success, the id at the key decides.
 *
 * @throws {CheckpointConflictError} if another writer has published first
 * @throws {RemoteError} if it is not known whether the manifest was written
 */
export async function publish(bucket: Bucket, publication: Publication): Promise<void> {
  const { sequence, id, manifest } = publication;
  const { place } = bucket;
  const key = manifestKey(place, sequence);
  try {
    await bucket.put(key, manifest, { ifAbsent: true });
  } catch (error) {
    if (!(error instanceof RemoteError)) throw error;
    const found = await idAt(bucket, key);
    if (found === undefined) throw error;
    if (found !== id)
      throw new CheckpointConflictError(place.url, "Another writer has published a checkpoint");
  }
  await checkIsNewest(bucket, sequence);
}

/**
 * A very slow writer could use a sequence again that was pruned. Its manifest would be behind newer
 * ones from its first instant.
 */
async function checkIsNewest(bucket: Bucket, sequence: number): Promise<void> {
  let newest: Published | undefined;
  for await (const published of listPublished(bucket)) {
    newest ??= published;
    if (published.sequence > sequence) continue;
    // Newer ones were published on top of this one.
    if (published.sequence === sequence && published.modifiedMs <= newest.modifiedMs) return;
    break;
  }
  await bucket.delete(manifestKey(bucket.place, sequence));
  throw new CheckpointConflictError(
    bucket.place.url,
    `Other writers have published ${newest?.sequence ?? 0} checkpoints meanwhile`,
  );
}
