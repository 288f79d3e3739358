/**
 * The manifests that this thread has published last. The next save builds on one of them, and need
 * not fetch 12 bytes for each page that it has sent itself.
 */
const MOST_BYTES = 2 ** 26;

/** By checkpoint id, which is random; the oldest first. */
const manifests = new Map<bigint, Uint8Array>();

/** `replaced`: the id of the manifest on which that one builds, if any. */
export function noteManifest(id: bigint, bytes: Uint8Array, replaced: bigint | undefined): void {
  if (replaced !== undefined) manifests.delete(replaced);
  let totalBytes = bytes.byteLength;
  if (totalBytes > MOST_BYTES) return;
  for (const other of manifests.values()) totalBytes += other.byteLength;
  for (const [oldest, other] of manifests) {
    if (totalBytes <= MOST_BYTES) break;
    manifests.delete(oldest);
    totalBytes -= other.byteLength;
  }
  manifests.set(id, bytes);
}

/** Undefined if it is not known. */
export function recentManifest(id: bigint): Uint8Array | undefined {
  return manifests.get(id);
}
