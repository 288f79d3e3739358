/** The page files that a manifest in a bucket names. */
import type { PageFile } from "../checkpoint/format.ts";
import { RemoteError } from "../errors/remote-errors.ts";
import type { Bucket } from "../http/bucket.ts";
import { readManifest } from "./open-checkpoint.ts";

/** None if the manifest is gone. @throws {CorruptCheckpointError} {RemoteError} */
export async function manifestPageFiles(bucket: Bucket, key: string): Promise<readonly PageFile[]> {
  try {
    return (await readManifest(bucket.client, bucket.url(key))).manifest.pageFiles;
  } catch (error) {
    if (error instanceof RemoteError && error.failure === "missing") return [];
    throw error;
  }
}
