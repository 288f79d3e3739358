import { expect, test } from "bun:test";
import fc from "fast-check";
import { combineChecksums } from "../../src/load/page-checksums.ts";
import { PAGE_SIZE } from "../../src/pages/units.ts";

const PAGES = 8;

function checksumsOf(bytes: Uint8Array): Uint32Array {
  return Uint32Array.from({ length: PAGES }, (_, page) =>
    Bun.hash.crc32(bytes.subarray(page * PAGE_SIZE, (page + 1) * PAGE_SIZE)),
  );
}

test("the combined checksum equals that of all bytes together", () => {
  const image = fc.array(fc.tuple(fc.nat(PAGES * PAGE_SIZE - 1), fc.nat(255)), { maxLength: 40 });
  fc.assert(
    fc.property(
      image,
      fc.nat(PAGES - 1),
      fc.integer({ min: 1, max: PAGES }),
      (writes, first, most) => {
        const bytes = new Uint8Array(PAGES * PAGE_SIZE);
        for (const [at, value] of writes) bytes[at] = value;
        const count = Math.min(most, PAGES - first);
        const together = Bun.hash.crc32(
          bytes.subarray(first * PAGE_SIZE, (first + count) * PAGE_SIZE),
        );
        expect(combineChecksums(checksumsOf(bytes), first, count)).toBe(together);
      },
    ),
  );
});

test("a checksum shows a bit that flips anywhere, and two pages that are swapped", () => {
  const bytes = crypto.getRandomValues(new Uint8Array(PAGES * PAGE_SIZE));
  const checksums = checksumsOf(bytes);
  const right = combineChecksums(checksums, 0, PAGES);
  expect(Bun.hash.crc32(bytes)).toBe(right);
  for (let page = 0; page < PAGES; page++) {
    bytes[page * PAGE_SIZE + 17]! ^= 1 << page;
    expect(Bun.hash.crc32(bytes)).not.toBe(right);
    bytes[page * PAGE_SIZE + 17]! ^= 1 << page;
  }
  checksums.subarray(0, 2).reverse();
  expect(combineChecksums(checksums, 0, PAGES)).not.toBe(right);
});
