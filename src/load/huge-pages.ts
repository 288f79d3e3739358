/**
 * Makes a unit's memory a huge page before its contents are read into it: allocating 512 small
 * pages takes several times as long as copying them.
 */
import {
  MADV_COLLAPSE,
  MADV_POPULATE_WRITE,
  SYSTEM_PAGE_SIZE,
  tryAdvise,
} from "../../ffi/index.ts";
import { HUGE_PAGE_SIZE } from "../pages/units.ts";
import { PAGES_PER_UNIT } from "./load-tables.ts";

/**
 * A unit becomes a huge page if at least this many of its pages are read. Measured, page cache hot,
 * median of 400 units: a full unit takes 181 µs to make huge and 120 µs to read, against 1,583 µs
 * into small pages; with every fourth page absent 144 µs to read once it is huge, against 1,160 µs
 * into small pages. So a huge page is faster if more than a seventh of its pages are read. But it
 * commits the whole 2 MiB: with two thirds, that is at most 1.5 times the memory of the contents.
 */
export const HUGE_PAGES_MIN = Math.ceil((PAGES_PER_UNIT * 2) / 3);

/**
 * Populates one page (the kernel does not collapse an empty block), then collapses the block at
 * `address`. If the kernel refuses, small pages stay, with the same bytes.
 */
export function makeHuge(address: number): boolean {
  if (tryAdvise(address, SYSTEM_PAGE_SIZE, MADV_POPULATE_WRITE) !== 0) return false;
  return tryAdvise(address, HUGE_PAGE_SIZE, MADV_COLLAPSE) === 0;
}
