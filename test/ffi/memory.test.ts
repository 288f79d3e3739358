import { expect, test } from "bun:test";
import { closeSync, openSync } from "node:fs";
import {
  isMapped,
  mapAnonymous,
  reserve,
  residentFraction,
  SYSTEM_PAGE_SIZE as PAGE,
  unmap,
} from "../../ffi/index.ts";

test("isMapped is true for a stretch without a gap", () => {
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

test("isMapped is true for reserved address space, and false for invalid addresses", () => {
  const base = reserve(2 ** 40, 2 ** 30);
  expect(isMapped(base, 2 ** 40)).toBe(true);
  unmap(base, 2 ** 40);
  expect(isMapped(base, 2 ** 40)).toBe(false);
  for (const address of [0, -PAGE, 1.5, Number.NaN, 2 ** 53, 2 ** 60, PAGE * 2 ** 40]) {
    expect(isMapped(address, PAGE)).toBe(false);
  }
});

test("residentFraction of a file that cannot be mapped is 1", () => {
  const fd = openSync("/sys/kernel/mm/transparent_hugepage/enabled", "r");
  expect(residentFraction(fd, 4)).toBe(1);
  closeSync(fd);
});
