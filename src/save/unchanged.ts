/** A save whose checkpoint would say what its base says already. */
import type { OpenCheckpoint } from "../checkpoint/directory.ts";
import type { EncodedManifest } from "../checkpoint/encode.ts";
import { readBytes } from "../checkpoint/staging.ts";

/**
 * True if the base's manifest has the same bytes, its id included. The parts that are not compared,
 * the page columns, have their checksums in the first part.
 * @throws {SyscallError}
 */
export function isManifestOf({ contents }: OpenCheckpoint, encoded: EncodedManifest): boolean {
  const { fd, path, sizeBytes } = contents[0]!;
  const [first] = encoded.parts;
  if (encoded.lengthBytes !== sizeBytes) return false;
  return Buffer.compare(first, readBytes(fd, 0, first.byteLength, path)) === 0;
}
