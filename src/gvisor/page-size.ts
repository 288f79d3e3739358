/**
 * gVisor's format counts in 4 KiB pages, so memory that is read from it or written to it must have
 * pages of that size.
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
