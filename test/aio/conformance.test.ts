/**
 * One suite for every queue, as in gVisor's pkg/aio: the contract of queue.ts. Behaviour of one
 * implementation is tested in its own file.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { closeSync, openSync, readFileSync, writeFileSync } from "node:fs";
import fc from "fast-check";
import { errnoNumber, reserve, unmap } from "../../ffi/index.ts";
import { createQueue, QueueBusyError } from "../../src/aio/index.ts";
import { terminateIdleThreads } from "../../src/threads/idle.ts";
import { NativeMemory, pattern, TemporaryDirectory } from "./support/memory.ts";
import { PIECE, FILE_BYTES, errorResult, kinds, waits, toList } from "./support/kinds.ts";

afterAll(() => terminateIdleThreads());

for (const { kind, unavailable } of kinds) {
  const title =
    unavailable === null ? `${kind} queue` : `${kind} queue (not available here: ${unavailable})`;
  describe.skipIf(unavailable !== null)(title, () => {
    const make = (capacity = 8) => createQueue(kind, { capacity, threads: 2 });

    for (const [name, waitFor] of Object.entries(waits)) {
      describe(name, () => {
        test("reads a file piece by piece, with read and with readv", async () => {
          using directory = new TemporaryDirectory();
          const data = pattern(FILE_BYTES);
          writeFileSync(directory.file("data"), data);
          const fd = openSync(directory.file("data"), "r");
          await using queue = make();
          for (const vector of [false, true]) {
            using memory = new NativeMemory(FILE_BYTES);
            const seen = new Set<number>();
            const iovecs = new Float64Array(4);
            for (let next = 0; seen.size < FILE_BYTES / (2 * PIECE); ) {
              for (; queue.inFlight < queue.capacity && next < FILE_BYTES / (2 * PIECE); next++) {
                const offset = next * 2 * PIECE;
                if (vector) {
                  // Its two pages are swapped, because pieces need not be in the order of memory.
                  iovecs.set([
                    memory.address + offset + PIECE,
                    PIECE,
                    memory.address + offset,
                    PIECE,
                  ]);
                  queue.readv(next, fd, iovecs, 2, offset);
                  iovecs.fill(0);
                } else queue.read(next, fd, memory.address + offset, 2 * PIECE, offset);
              }
              for (const [id, result] of await waitFor(queue, 1)) {
                expect(result).toBe(2 * PIECE);
                expect(seen.has(id)).toBe(false);
                seen.add(id);
              }
            }
            const at = (page: number) => (vector ? page ^ 1 : page) * PIECE;
            for (let page = 0; page < FILE_BYTES / PIECE; page++) {
              const piece = memory.bytes.subarray(at(page), at(page) + PIECE);
              expect(Buffer.compare(piece, data.subarray(page * PIECE, (page + 1) * PIECE))).toBe(
                0,
              );
            }
          }
          closeSync(fd);
        });

        test("writes a file piece by piece, with write and with writev", async () => {
          using directory = new TemporaryDirectory();
          using memory = new NativeMemory(FILE_BYTES);
          memory.bytes.set(pattern(FILE_BYTES, 2));
          await using queue = make();
          for (const vector of [false, true]) {
            const path = directory.file(`written-${vector}`);
            const fd = openSync(path, "w");
            let done = 0;
            for (let next = 0; done < FILE_BYTES / (2 * PIECE); ) {
              for (; queue.inFlight < queue.capacity && next < FILE_BYTES / (2 * PIECE); next++) {
                const address = memory.address + next * 2 * PIECE;
                const iovecs = new Float64Array([
                  address,
                  PIECE + 1,
                  address + PIECE + 1,
                  PIECE - 1,
                ]);
                if (vector) queue.writev(next, fd, iovecs, 2, next * 2 * PIECE);
                else queue.write(next, fd, address, 2 * PIECE, next * 2 * PIECE);
              }
              for (const [, result] of await waitFor(queue, 1)) {
                expect(result).toBe(2 * PIECE);
                done++;
              }
            }
            closeSync(fd);
            expect(Buffer.compare(readFileSync(path), memory.bytes)).toBe(0);
          }
        });

        test("returns errors as results", async () => {
          using directory = new TemporaryDirectory();
          using memory = new NativeMemory(PIECE);
          writeFileSync(directory.file("data"), pattern(PIECE));
          const readOnly = openSync(directory.file("data"), "r");
          const folder = openSync(directory.path, "r");
          const full = openSync("/dev/full", "r+");
          const nowhere = reserve(1 << 21, 1 << 21);
          await using queue = make();
          const iovecs = new Float64Array([memory.address, PIECE / 2, nowhere, PIECE / 2]);
          queue.read(1, 1_000_000, memory.address, PIECE, 0);
          queue.read(2, readOnly, nowhere, PIECE, 0);
          queue.read(3, folder, memory.address, PIECE, 0);
          queue.write(4, readOnly, memory.address, PIECE, 0);
          queue.write(5, full, memory.address, PIECE, 0);
          queue.writev(6, full, new Float64Array([memory.address, 8]), 1, 0);
          queue.read(7, readOnly, memory.address, PIECE, 0);
          const results = new Map(await waitFor(queue, 7));
          expect(results.get(1)).toBe(errorResult("EBADF"));
          expect(results.get(2)).toBe(errorResult("EFAULT"));
          expect(results.get(3)).toBe(errorResult("EISDIR"));
          expect(results.get(4)).toBe(errorResult("EBADF"));
          expect(results.get(5)).toBe(errorResult("ENOSPC"));
          expect(results.get(6)).toBe(errorResult("ENOSPC"));
          expect(results.get(7)).toBe(PIECE);
          // Half of it could be moved. The result is the error all the same.
          queue.readv(8, readOnly, iovecs, 2, 0);
          expect(await waitFor(queue, 1)).toEqual([[8, errorResult("EFAULT")]]);
          unmap(nowhere, 1 << 21);
          for (const fd of [readOnly, folder, full]) closeSync(fd);
        });

        test("falls short only at the end of the file", async () => {
          using directory = new TemporaryDirectory();
          using memory = new NativeMemory(4 * PIECE);
          writeFileSync(directory.file("data"), pattern(PIECE + 100));
          const fd = openSync(directory.file("data"), "r");
          await using queue = make();
          queue.read(1, fd, memory.address, 3 * PIECE, 0);
          queue.read(2, fd, memory.address + 3 * PIECE, PIECE, 10 * PIECE);
          const iovecs = new Float64Array([
            memory.address,
            PIECE + 50,
            memory.address + 2 * PIECE,
            PIECE,
          ]);
          queue.readv(3, fd, iovecs, 2, 0);
          expect(new Map(await waitFor(queue, 3))).toEqual(
            new Map([
              [1, PIECE + 100],
              [2, 0],
              [3, PIECE + 100],
            ]),
          );
          closeSync(fd);
        });

        test("returns at once from a wait for nothing", async () => {
          await using queue = make();
          expect(await waitFor(queue, 0)).toEqual([]);
          await expect(waitFor(queue, 1)).rejects.toThrow("minCompletions");
          await expect(waitFor(queue, -1)).rejects.toThrow(RangeError);
          await expect(waitFor(queue, Number.NaN)).rejects.toThrow(RangeError);
        });

        test("leaves the same bytes in the file as a plain model", async () => {
          using directory = new TemporaryDirectory();
          using memory = new NativeMemory(FILE_BYTES);
          await using queue = make(16);
          let round = 0;
          // Operations of one round are unordered, so each has its own stripe of the file and of
          // memory.
          const stripe = FILE_BYTES / 16;
          const operation = fc.record({
            write: fc.boolean(),
            from: fc.nat(stripe - 1),
            length: fc.integer({ min: 1, max: stripe }),
            cut: fc.nat(1000),
          });
          await fc.assert(
            fc.asyncProperty(
              fc.array(fc.array(operation, { minLength: 1, maxLength: 16 }), { maxLength: 4 }),
              async (rounds) => {
                const path = directory.file(`model-${round}`);
                writeFileSync(path, "");
                const fd = openSync(path, "r+");
                let model = new Uint8Array(0);
                for (const operations of rounds) {
                  memory.bytes.set(pattern(FILE_BYTES, ++round));
                  const before = memory.bytes.slice();
                  const expected = new Map<number, number>();
                  const memoryAfter = before.slice();
                  let fileAfter = model.slice();
                  operations.forEach(({ write, from, length, cut }, i) => {
                    const offset = i * stripe + from;
                    const bytes = Math.min(length, stripe - from);
                    const pieces = cut < bytes && cut > 0 ? [cut, bytes - cut] : [bytes];
                    const address = memory.address + offset;
                    const iovecs = new Float64Array(
                      pieces.flatMap((piece, k) => [address + (k === 0 ? 0 : cut), piece]),
                    );
                    const add = write ? "write" : "read";
                    if (pieces.length > 1) queue[`${add}v`](i, fd, iovecs, pieces.length, offset);
                    else queue[add](i, fd, address, bytes, offset);
                    if (write) {
                      if (fileAfter.length < offset + bytes) {
                        const longer = new Uint8Array(offset + bytes);
                        longer.set(fileAfter);
                        fileAfter = longer;
                      }
                      fileAfter.set(before.subarray(offset, offset + bytes), offset);
                      expected.set(i, bytes);
                    }
                  });
                  const results = new Map<number, number>();
                  while (queue.inFlight > 0)
                    for (const [id, result] of await waitFor(queue, 1)) results.set(id, result);
                  operations.forEach(({ write, from, length }, i) => {
                    if (write) return;
                    // Another operation of the round may have made the file longer before or after
                    // this read of its stripe.
                    const offset = i * stripe + from;
                    const bytes = Math.min(length, stripe - from);
                    const result = results.get(i)!;
                    expect(result).toBeGreaterThanOrEqual(
                      Math.max(0, Math.min(bytes, model.length - offset)),
                    );
                    expect(result).toBeLessThanOrEqual(
                      Math.max(0, Math.min(bytes, fileAfter.length - offset)),
                    );
                    memoryAfter.set(fileAfter.subarray(offset, offset + result), offset);
                    expected.set(i, result);
                  });
                  expect(results).toEqual(expected);
                  expect(Buffer.compare(memory.bytes, memoryAfter)).toBe(0);
                  model = fileAfter;
                  expect(Buffer.compare(readFileSync(path), model)).toBe(0);
                }
                closeSync(fd);
              },
            ),
            { numRuns: 25 },
          );
        });
      });
    }

    test("refuses operations beyond its capacity", async () => {
      using directory = new TemporaryDirectory();
      using memory = new NativeMemory(PIECE);
      writeFileSync(directory.file("data"), pattern(PIECE));
      const fd = openSync(directory.file("data"), "r");
      await using queue = make(3);
      expect(queue.capacity).toBe(3);
      for (let i = 0; i < 3; i++) queue.read(i, fd, memory.address + i, 1, i);
      expect(queue.inFlight).toBe(3);
      expect(() => queue.read(3, fd, memory.address, 1, 0)).toThrow(
        new RangeError(
          "Cannot add an operation: 3 are in flight, the queue's capacity; wait for one first",
        ),
      );
      expect(() => queue.writev(3, fd, new Float64Array([memory.address, 1]), 1, 0)).toThrow(
        RangeError,
      );
      expect(queue.wait(3).count).toBe(3);
      expect(queue.inFlight).toBe(0);
      queue.read(3, fd, memory.address, 1, 0);
      expect(toList(queue.wait(1))).toEqual([[3, 1]]);
      closeSync(fd);
      for (const capacity of [0, -1, 1.5, 4097, Number.NaN])
        expect(() => make(capacity)).toThrow(RangeError);
      expect(() => make("3" as unknown as number)).toThrow(TypeError);
    });

    test("accepts any safe integer as id, also twice", async () => {
      using directory = new TemporaryDirectory();
      using memory = new NativeMemory(PIECE);
      writeFileSync(directory.file("data"), pattern(PIECE));
      const fd = openSync(directory.file("data"), "r");
      await using queue = make();
      for (let round = 0; round < 3; round++) {
        for (const id of [0, 0, 7, Number.MAX_SAFE_INTEGER])
          queue.read(id, fd, memory.address, 1, 0);
        const ids: number[] = [];
        while (queue.inFlight > 0) ids.push(...toList(queue.wait(1)).map(([id]) => id));
        expect(ids.sort((a, b) => a - b)).toEqual([0, 0, 7, Number.MAX_SAFE_INTEGER]);
      }
      closeSync(fd);
    });

    test("refuses arguments that are not integers in range, and changes nothing", async () => {
      await using queue = make();
      const good = { id: 1, fd: 0, address: 4096, length: 1, offset: 0 };
      const read = ({ id, fd, address, length, offset }: typeof good) =>
        queue.read(id, fd, address, length, offset);
      const readv = ({ id, fd, address, length, offset }: typeof good) =>
        queue.readv(id, fd, new Float64Array([address, length]), 1, offset);
      for (const add of [read, readv]) {
        for (const bad of [-1, 0.5, Number.NaN, 2 ** 53, Number.POSITIVE_INFINITY]) {
          for (const name of Object.keys(good))
            expect(() => add({ ...good, [name]: bad })).toThrow(RangeError);
        }
        expect(() => add({ ...good, length: 0 })).toThrow(RangeError);
        expect(() => add({ ...good, length: 2 ** 31 })).toThrow(RangeError);
        expect(() => add({ ...good, fd: 2 ** 31 })).toThrow(RangeError);
      }
      expect(() => read({ ...good, id: "1" as never })).toThrow(TypeError);
      expect(() => queue.readv(1, 0, new Float64Array([4096, 1]), 2, 0)).toThrow("iovec count");
      expect(() => queue.readv(1, 0, new Float64Array([4096, 1]), 0, 0)).toThrow("iovec count");
      expect(() => queue.readv(1, 0, [4096, 1] as never, 1, 0)).toThrow(TypeError);
      expect(queue.inFlight).toBe(0);
      expect(queue.wait(0).count).toBe(0);
    });

    test("refuses a second wait while one is pending", async () => {
      using directory = new TemporaryDirectory();
      using memory = new NativeMemory(PIECE);
      writeFileSync(directory.file("data"), pattern(PIECE));
      const fd = openSync(directory.file("data"), "r");
      await using queue = make();
      queue.read(1, fd, memory.address, PIECE, 0);
      const first = queue.waitAsync(1);
      expect(() => queue.wait(0)).toThrow(QueueBusyError);
      await expect(queue.waitAsync(1)).rejects.toBeInstanceOf(QueueBusyError);
      expect(toList(await first)).toEqual([[1, PIECE]]);
      closeSync(fd);
    });

    if (kind !== "uring")
      test("refuses a pipe, which has no positions", async () => {
        using directory = new TemporaryDirectory();
        using memory = new NativeMemory(PIECE);
        Bun.spawnSync(["mkfifo", directory.file("pipe")]);
        const pipe = openSync(directory.file("pipe"), "r+");
        await using queue = make();
        queue.read(1, pipe, memory.address, 10, 0);
        queue.writev(2, pipe, new Float64Array([memory.address, 10]), 1, 0);
        const told = toList(await queue.waitAsync(2)).sort(([a], [b]) => a - b);
        const refused = -errnoNumber("ESPIPE");
        expect(told).toEqual([
          [1, refused],
          [2, refused],
        ]);
        closeSync(pipe);
      });
  });
}
