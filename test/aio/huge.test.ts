/** Reads that make their memory a huge page first: what the kernel says it did, in /proc/self/smaps, is what the queue says. */
import { describe, expect, test } from "bun:test";
import { closeSync, openSync, readFileSync, writeFileSync } from "node:fs";
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
import { createQueue, uringUnavailableReason } from "../../src/aio/index.ts";
import { makeHuge } from "../../src/aio/perform.ts";
import { HUGE_PAGE_SIZE } from "../../src/pages/units.ts";
import { pattern, TemporaryDirectory } from "./support/memory.ts";

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

const collapses = (() => {
  using chunk = new Chunk(HUGE_PAGE_SIZE);
  return makeHuge(chunk.address);
})();
const BLOCKS = 4;

for (const kind of ["inline", "workers", "uring"] as const) {
  const reason = kind === "uring" ? uringUnavailableReason() : null;
  describe.skipIf(reason !== null)(
    reason === null ? kind : `${kind} (not available here: ${reason})`,
    () => {
      test.skipIf(!collapses)(
        `blocks are huge pages${collapses ? "" : " (this kernel refuses MADV_COLLAPSE)"}`,
        async () => {
          using directory = new TemporaryDirectory();
          const data = pattern(BLOCKS * HUGE_PAGE_SIZE);
          writeFileSync(directory.file("data"), data);
          const fd = openSync(directory.file("data"), "r");
          using chunk = new Chunk(BLOCKS * HUGE_PAGE_SIZE);
          await using queue = createQueue(kind, { capacity: BLOCKS });
          for (let block = 0; block < BLOCKS; block++) {
            const offset = block * HUGE_PAGE_SIZE;
            const address = chunk.address + offset;
            const hugeBlock = block === 1 ? 0 : address;
            if (block === 2) {
              const half = HUGE_PAGE_SIZE / 2;
              queue.readv(
                block,
                fd,
                new Float64Array([address, half, address + half, half]),
                2,
                offset,
                hugeBlock,
              );
            } else queue.read(block, fd, address, HUGE_PAGE_SIZE, offset, hugeBlock);
          }
          const { count, ids, results, huge } = queue.wait(BLOCKS);
          expect([...results.subarray(0, count)]).toEqual(Array(BLOCKS).fill(HUGE_PAGE_SIZE));
          expect([...huge.subarray(0, count)]).toEqual(
            [...ids.subarray(0, count)].map((id) => (id === 1 ? 0 : 1)),
          );
          expect(chunk.holds(data)).toBe(true);
          expect(chunk.hugeBytes).toBe((BLOCKS - 1) * HUGE_PAGE_SIZE);
          closeSync(fd);
        },
      );

      test("a block that the kernel refuses is read all the same", async () => {
        using directory = new TemporaryDirectory();
        const data = pattern(2 * HUGE_PAGE_SIZE);
        writeFileSync(directory.file("data"), data);
        const fd = openSync(directory.file("data"), "r");
        using chunk = new Chunk(2 * HUGE_PAGE_SIZE);
        // Nothing is mapped there, so neither populating nor collapsing can work.
        const nowhere = reserve(HUGE_PAGE_SIZE, HUGE_PAGE_SIZE);
        await using queue = createQueue(kind);
        for (let block = 0; block < 2; block++) {
          const offset = block * HUGE_PAGE_SIZE;
          queue.read(block, fd, chunk.address + offset, HUGE_PAGE_SIZE, offset, nowhere);
        }
        const { count, results, huge } = queue.wait(2);
        expect([...results.subarray(0, count)]).toEqual([HUGE_PAGE_SIZE, HUGE_PAGE_SIZE]);
        expect([...huge.subarray(0, count)]).toEqual([0, 0]);
        expect(chunk.holds(data)).toBe(true);
        unmap(nowhere, HUGE_PAGE_SIZE);
        closeSync(fd);
      });
    },
  );
}
