/** Files at a manifest's name that are of another origin: nothing here replaces them. */
import { lstatSync } from "node:fs";
import { closeFile, fileStatus, O_NONBLOCK, O_RDONLY, openFile } from "../../ffi/index.ts";
import { NotCheckpointError } from "../errors/errors.ts";
import { MAGIC } from "./format.ts";
import { readBytes } from "./staging.ts";

/** @throws {NotCheckpointError} if the manifest at `path`, which is damaged, is another's file */
export function refuseForeign(path: string): void {
  if (isForeign(path)) throw new NotCheckpointError(path);
}

/**
 * True for a file that no save made. Damage may have emptied a manifest, or its magic number. A
 * save replaces a link, and the link's target stays.
 */
function isForeign(path: string): boolean {
  if (lstatSync(path).isSymbolicLink()) return false;
  const fd = openFile(path, O_RDONLY | O_NONBLOCK);
  try {
    if (!fileStatus(fd).isFile) return true;
    const found = readBytes(fd, 0, 8, path);
    const magic = new Uint8Array(BigUint64Array.of(MAGIC).buffer);
    const matches = found.filter((byte, i) => byte === magic[i]).length;
    return matches < 4 && found.some((byte) => byte !== 0);
  } finally {
    closeFile(fd);
  }
}
