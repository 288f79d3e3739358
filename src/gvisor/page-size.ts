/**
 * gVisor's format counts in 4 KiB pages, so reading and writing it requires a machine with such
 * pages.
 */
import { UnsupportedError } from "../errors/errors.ts";
import { PAGE_SIZE } from "../pages/units.ts";
import { PAGE_BYTES } from "./image.ts";

/** @throws {UnsupportedError} on a machine with pages of another size */
export function requireGvisorPageSize(pageSize: number = PAGE_SIZE): void {
  if (pageSize === PAGE_BYTES) return;
  throw new UnsupportedError(
    `gVisor's checkpoints have pages of ${PAGE_BYTES} bytes; this machine's have ${pageSize}`,
  );
}
