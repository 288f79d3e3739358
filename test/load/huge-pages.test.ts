/** makeHuge returns what /proc/self/smaps confirms. */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import {
  bufferAt,
  closeFile,
  createMemoryFd,
  detach,
  mapFileAt,
  reserve,
  truncateFile,
  unmap,
} from "../../ffi/index.ts";
import { makeHuge } from "../../src/load/huge-pages.ts";
import { HUGE_PAGE_SIZE } from "../../src/pages/units.ts";
import { pattern } from "../aio/support/memory.ts";

/** A mapping of a memory file, aligned to huge pages. */
class Chunk implements Disposable {
  readonly address: number;
  private readonly fd = createMemoryFd("huge-test");
  private readonly lengthBytes: number;

  constructor(lengthBytes: number) {
    this.lengthBytes = lengthBytes;
    truncateFile(this.fd, lengthBytes);
    this.address = reserve(lengthBytes, HUGE_PAGE_SIZE);
    mapFileAt(this.address, lengthBytes, this.fd, 0);
  }

  /** Bytes that the kernel maps with huge pages. */
  get hugeBytes(): number {
    const smaps = readFileSync("/proc/self/smaps", "utf8").split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m);
    const own = smaps.find((entry) => entry.startsWith(`${this.address.toString(16)}-`))!;
    return Number(/ShmemPmdMapped:\s+(\d+) kB/.exec(own)![1]) * 1024;
  }

  fill(data: Uint8Array): void {
    const buffer = bufferAt(this.address, this.lengthBytes);
    new Uint8Array(buffer).set(data);
    detach(buffer);
  }

  /** Compares contents, block by block. */
  holds(data: Uint8Array): boolean {
    const buffer = bufferAt(this.address, this.lengthBytes);
    const same = Buffer.compare(new Uint8Array(buffer, 0, data.length), data) === 0;
    detach(buffer);
    return same;
  }

  [Symbol.dispose](): void {
    unmap(this.address, this.lengthBytes);
    closeFile(this.fd);
  }
}

test("makeHuge makes a block one huge page with the same bytes, if the kernel can", () => {
  using chunk = new Chunk(3 * HUGE_PAGE_SIZE);
  const data = pattern(3 * HUGE_PAGE_SIZE);
  const madeHuge = [0, 2].map((block) => makeHuge(chunk.address + block * HUGE_PAGE_SIZE));
  // A kernel that refuses MADV_COLLAPSE refuses it for every block.
  expect(madeHuge[0]).toBe(madeHuge[1]!);
  chunk.fill(data);
  expect(chunk.hugeBytes).toBe(madeHuge[0] === true ? 2 * HUGE_PAGE_SIZE : 0);
  expect(chunk.holds(data)).toBe(true);
});

test("makeHuge returns false if nothing is mapped", () => {
  const nowhere = reserve(HUGE_PAGE_SIZE, HUGE_PAGE_SIZE);
  expect(makeHuge(nowhere)).toBe(false);
  unmap(nowhere, HUGE_PAGE_SIZE);
});
