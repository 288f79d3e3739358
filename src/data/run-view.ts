/** Typed arrays over runs of pages, for programs. */
import { PAGE_SIZE } from "../pages/units.ts";
import { type Arena, NO_LOOK } from "./arena.ts";
import { STORE_PAGE, WINDOW_PAGE_BITS, WINDOW_PAGE_MASK } from "./layout.ts";

/**
 * A typed array over the beginning of a run of pages. Its buffer is the run alone where the
 * system's page size allows that. @throws {CorruptStoreError} {NotLoadedError}
 */
export function viewRun<T extends ArrayBufferView>(
  arena: Arena,
  address: number,
  pages: number,
  type: (new (
    buffer: ArrayBuffer,
    at?: number,
    length?: number,
  ) => T) & {
    readonly BYTES_PER_ELEMENT: number;
  },
  length: number,
): T {
  const window = address >>> WINDOW_PAGE_BITS;
  const byte = (address & WINDOW_PAGE_MASK) * STORE_PAGE;
  const bytes = arena.bytes[window];
  const end = byte + pages * STORE_PAGE;
  const isInside = window > 0 && bytes !== undefined && end <= bytes.length;
  if (!isInside || length * type.BYTES_PER_ELEMENT > pages * STORE_PAGE)
    throw arena.outside(window, byte >>> 2);
  if (arena.isMissing) arena.requireLoaded(window, byte >>> 2, pages * (STORE_PAGE / 4));
  const start = arena.starts[window]! + byte;
  const first = start / PAGE_SIZE;
  const last = (start + pages * STORE_PAGE) / PAGE_SIZE;
  if (!Number.isInteger(first) || !Number.isInteger(last))
    return new type(bytes.buffer, byte, length);
  const view = arena.core.views.get(first, last, Uint8Array<ArrayBuffer>, NO_LOOK);
  return new type(view.buffer, 0, length);
}
