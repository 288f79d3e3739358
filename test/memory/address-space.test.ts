/** Address space: a process has room for thousands of files that give no limit. */
import { expect, test } from "bun:test";
import { bytesToReserve } from "../../src/memory/address-space.ts";
import { CHUNK_SIZE, MemoryFile, PAGE_SIZE } from "../../src/index.ts";

test("create reserves less for each of many files, and the last can be used", () => {
  expect(bytesToReserve()).toBe(256 * CHUNK_SIZE);
  const files: MemoryFile[] = [];
  try {
    for (let i = 0; i < 600; i++) files.push(MemoryFile.create());
    const last = files.at(-1)!;
    last.view(last.allocate(PAGE_SIZE))[0] = 1;
    expect(bytesToReserve()).toBeWithin(16 * CHUNK_SIZE, 64 * CHUNK_SIZE);
  } finally {
    for (const file of files) file.destroy();
  }
});
