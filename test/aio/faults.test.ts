/** Calls that fall short, fail or are interrupted, injected through this thread's fault hook. */
import { afterEach, describe, expect, test } from "bun:test";
import { closeSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { errnoNumber, type FaultHook, setFaultHook, syscallCounts } from "../../ffi/index.ts";
import { createQueue, uringUnavailableReason } from "../../src/aio/index.ts";
import { NativeMemory, pattern, TemporaryDirectory } from "./support/memory.ts";

afterEach(() => setFaultHook(undefined));

const unavailable = uringUnavailableReason();
const LENGTH = 10_000;
const transfers = /^(uring_|p)(readv?|writev?)$/;
const shorten =
  (maxBytes: number): FaultHook =>
  (name) =>
    transfers.test(name) ? { maxBytes } : undefined;

for (const kind of ["inline", "uring"] as const) {
  const skipped = kind === "uring" ? unavailable : null;
  const title =
    skipped === null ? `${kind} queue` : `${kind} queue (not available here: ${skipped})`;
  describe.skipIf(skipped !== null)(title, () => {
    test("finishes short reads and writes", async () => {
      using directory = new TemporaryDirectory();
      using memory = new NativeMemory(4 * LENGTH);
      const data = pattern(LENGTH);
      writeFileSync(directory.file("data"), data);
      const fd = openSync(directory.file("data"), "r");
      const out = openSync(directory.file("out"), "w");
      await using queue = createQueue(kind);
      setFaultHook(shorten(777));
      const { address, bytes } = memory;
      queue.read(1, fd, address, 2 * LENGTH, 0);
      // Segments shorter and longer than one call moves.
      const iovecs = [3, 777, 778, 1, LENGTH].flatMap((length, i, all) => [
        address + 2 * LENGTH + all.slice(0, i).reduce((sum, n) => sum + n, 0),
        length,
      ]);
      queue.readv(2, fd, new Float64Array(iovecs), 5, 0);
      expect(results(queue.wait(2))).toEqual(new Map([1, 2].map((id) => [id, LENGTH])));
      expect(Buffer.compare(bytes.subarray(0, LENGTH), data)).toBe(0);
      expect(Buffer.compare(bytes.subarray(2 * LENGTH, 3 * LENGTH), data)).toBe(0);
      expect(bytes.subarray(LENGTH, 2 * LENGTH).every((byte) => byte === 0)).toBe(true);

      queue.write(3, out, address, LENGTH, 0);
      queue.writev(4, out, new Float64Array([address, 5, address + 5, LENGTH - 5]), 2, LENGTH);
      expect(results(queue.wait(2))).toEqual(new Map([3, 4].map((id) => [id, LENGTH])));
      expect(Buffer.compare(readFileSync(directory.file("out")), Buffer.concat([data, data]))).toBe(
        0,
      );
      for (const open of [fd, out]) closeSync(open);
    });

    test("returns an error as the result, also after bytes were moved", async () => {
      using directory = new TemporaryDirectory();
      using memory = new NativeMemory(LENGTH);
      writeFileSync(directory.file("data"), pattern(LENGTH));
      const fd = openSync(directory.file("data"), "r+");
      await using queue = createQueue(kind);
      setFaultHook((name, _fd, offset) => {
        if (!transfers.test(name)) return undefined;
        return offset >= 3000 ? { errno: errnoNumber("EIO") } : { maxBytes: 1000 };
      });
      const iovecs = new Float64Array([memory.address, 10, memory.address + 10, LENGTH - 10]);
      queue.read(1, fd, memory.address, LENGTH, 0);
      queue.write(2, fd, memory.address, LENGTH, 0);
      queue.readv(3, fd, iovecs, 2, 0);
      queue.writev(4, fd, iovecs, 2, 5000);
      expect(results(queue.wait(4))).toEqual(
        new Map([1, 2, 3, 4].map((id) => [id, -errnoNumber("EIO")])),
      );
      closeSync(fd);
    });
  });
}

describe.skipIf(unavailable !== null)(
  `io_uring_enter${unavailable === null ? "" : ` (not available here: ${unavailable})`}`,
  () => {
    for (const code of ["EINTR", "EAGAIN", "EBUSY"]) {
      test(`continues after ${code}`, async () => {
        using directory = new TemporaryDirectory();
        using memory = new NativeMemory(64 * 4096);
        const data = pattern(64 * 4096);
        writeFileSync(directory.file("data"), data);
        const fd = openSync(directory.file("data"), "r");
        await using queue = createQueue("uring", { capacity: 64 });
        let calls = 0;
        // The first call goes through, so that something is in flight; then every second one fails.
        setFaultHook((name) =>
          name === "io_uring_enter" && ++calls % 2 === 0 ? { errno: errnoNumber(code) } : undefined,
        );
        let done = 0;
        for (let page = 0; page < 64; page++) {
          queue.read(page, fd, memory.address + page * 4096, 4096, page * 4096);
          done += queue.wait(0).count;
        }
        while (queue.inFlight > 0) done += (await queue.waitAsync(1)).count;
        expect(done).toBe(64);
        expect(calls).toBeGreaterThan(2);
        expect(Buffer.compare(memory.bytes, data)).toBe(0);
        closeSync(fd);
      });
    }

    test("throws any other error, and leaves a queue that can be destroyed", async () => {
      using memory = new NativeMemory(4096);
      const queue = createQueue("uring");
      queue.read(1, 0, memory.address, 1, 0);
      setFaultHook((name) =>
        name === "io_uring_enter" ? { errno: errnoNumber("EBADF") } : undefined,
      );
      expect(() => queue.wait(1)).toThrow("EBADF: io_uring_enter failed");
      setFaultHook(undefined);
      await queue.destroy();
    });

    test("submits many operations in one call", async () => {
      using directory = new TemporaryDirectory();
      using memory = new NativeMemory(32 * 4096);
      writeFileSync(directory.file("data"), pattern(32 * 4096));
      const fd = openSync(directory.file("data"), "r");
      await using queue = createQueue("uring", { capacity: 32 });
      const before = syscallCounts.io_uring_enter ?? 0;
      for (let page = 0; page < 32; page++)
        queue.read(page, fd, memory.address + page * 4096, 4096, page * 4096);
      expect(queue.wait(32).count).toBe(32);
      // A wait may be woken before the last completion, but not by each.
      expect(syscallCounts.io_uring_enter! - before).toBeLessThanOrEqual(4);
      closeSync(fd);
    });
  },
);

function results({
  count,
  ids,
  results,
}: {
  count: number;
  ids: Float64Array;
  results: Float64Array;
}): Map<number, number> {
  return new Map(Array.from({ length: count }, (_, i) => [ids[i]!, results[i]!]));
}
