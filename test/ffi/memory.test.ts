import { expect, test } from "bun:test";
import {
  isMapped,
  mapAnonymous,
  reserve,
  SYSTEM_PAGE_SIZE as PAGE,
  unmap,
} from "../../ffi/index.ts";

test("a stretch is mapped if nothing of it is missing", () => {
  const base = mapAnonymous(8 * PAGE);
  expect(isMapped(base, 8 * PAGE)).toBe(true);
  unmap(base + 3 * PAGE, PAGE);
  expect(isMapped(base, 8 * PAGE)).toBe(false);
  expect(isMapped(base, 4 * PAGE)).toBe(false);
  expect(isMapped(base + 3 * PAGE, PAGE)).toBe(false);
  expect(isMapped(base, 3 * PAGE)).toBe(true);
  expect(isMapped(base + 4 * PAGE, 4 * PAGE)).toBe(true);
  unmap(base, 8 * PAGE);
});

test("address space that is only reserved is mapped; what cannot be an address is not", () => {
  const base = reserve(2 ** 40, 2 ** 30);
  expect(isMapped(base, 2 ** 40)).toBe(true);
  unmap(base, 2 ** 40);
  expect(isMapped(base, 2 ** 40)).toBe(false);
  for (const address of [0, -PAGE, 1.5, Number.NaN, 2 ** 53, 2 ** 60, PAGE * 2 ** 40]) {
    expect(isMapped(address, PAGE)).toBe(false);
  }
});
