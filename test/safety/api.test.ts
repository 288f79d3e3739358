/**
 * Memory safety of the API: with any views, numbers, callbacks and threads, a program gets data or
 * an error, never other memory and never a dead process.
 *
 * Each trap of bun:ffi and of Bun's buffers has a test. Here: stale pointers of small typed arrays,
 * MAP_FAILED as a number, numbers out of range, errno, views that outlive their memory, buffers of
 * other Workers, transferred buffers, callbacks that destroy the file, holes under live views, the
 * weight of buffers on the collector. Elsewhere: EINTR (strace.test.ts), views of 4 GiB
 * (file/arguments.test.ts), pinned buffers, posted views, double destroy, a pending waitAsync
 * (file/lifetime.test.ts), files that shrink (files.test.ts), a full disk (save-faults.test.ts),
 * threads that end in a native call (threads/lifetime.test.ts), empty huge pages
 * (load/huge-pages.test.ts).
 */
import { describe, expect, test } from "bun:test";
import { closeSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { deflate } from "node:zlib";
import * as ffi from "../../ffi/index.ts";
import { CHUNK_SIZE, MemoryFile, PAGE_SIZE } from "../../src/index.ts";
import { runProgram } from "./support/run-program.ts";
import { isMapped, withDirectory } from "./support/files-of-test.ts";

test("native calls write to the right place after tier-up and during collections", async () => {
  await withDirectory(async (directory) => {
    const sizes = [1234, 56_789];
    const fds = sizes.map((size, i) => {
      writeFileSync(join(directory, `${i}`), new Uint8Array(size));
      return openSync(join(directory, `${i}`), "r");
    });
    using file = MemoryFile.create();
    const range = file.allocate(4 * PAGE_SIZE);
    file.view(range).fill(1);
    const address = ffi.addressOf(file.view(range));
    let wrong = 0;
    let garbage: Uint8Array[] = [];
    for (let i = 0; i < 60_000; i++) {
      if (ffi.fileStatus(fds[i % 2]!).sizeBytes !== sizes[i % 2]) wrong++;
      const residency = new Uint8Array(4);
      ffi.mincore(address, 4 * PAGE_SIZE, residency);
      if (!residency.every((bits) => (bits & 1) === 1)) wrong++;
      garbage.push(new Uint8Array(64));
      if (i % 5000 === 0) {
        garbage = [];
        Bun.gc(true);
      }
    }
    expect(wrong).toBe(0);
    for (const fd of fds) closeSync(fd);
  });
});

test("a mapping that fails is an error with a code, not an address", () => {
  expect(() => ffi.reserve(2 ** 47, PAGE_SIZE)).toThrow(
    expect.objectContaining({ code: "ENOMEM", syscall: "mmap" }),
  );
  expect(() => ffi.mapFile(PAGE_SIZE, 2 ** 30, 0)).toThrow(
    expect.objectContaining({ code: "EBADF" }),
  );
  ffi.setFaultHook((call) => (call === "mmap" ? { errno: ffi.errnoNumber("ENOMEM") } : undefined));
  try {
    expect(() => MemoryFile.create()).toThrow(expect.objectContaining({ code: "ENOMEM" }));
  } finally {
    ffi.setFaultHook(undefined);
  }
});

test("numbers out of range never reach a native call", () => {
  const wrong = [
    1.5,
    Number.NaN,
    -1,
    2 ** 53,
    2 ** 60,
    Number.POSITIVE_INFINITY,
    "4096",
    4096n,
    undefined,
    null,
    {},
  ];
  const calls: [string, (value: never) => unknown][] = [
    ["closeFile", (value) => ffi.closeFile(value)],
    ["openAt", (value) => ffi.openAt(value, "x", ffi.O_RDONLY)],
    ["unlinkAt", (value) => ffi.unlinkAt(value, "x")],
    ["renameAt", (value) => ffi.renameAt(value, "x", "y")],
    ["listDirectory", (value) => ffi.listDirectory(value)],
    ["fileStatus", (value) => ffi.fileStatus(value)],
    ["tryLockFile", (value) => ffi.tryLockFile(value)],
    ["duplicateFile", (value) => ffi.duplicateFile(value)],
    ["truncateFile fd", (value) => ffi.truncateFile(value, 1)],
    ["truncateFile", (value) => ffi.truncateFile(0, value)],
    ["allocateRange offset", (value) => ffi.allocateRange(0, value, 1)],
    ["allocateRange length", (value) => ffi.allocateRange(0, 0, value)],
    ["punchHole", (value) => ffi.punchHole(0, value, 1)],
    ["seekData", (value) => ffi.seekData(0, value)],
    ["readAt fd", (value) => ffi.readAt(value, 1, 1, 0)],
    ["readAt address", (value) => ffi.readAt(0, value, 1, 0)],
    ["readAt length", (value) => ffi.readAt(0, 1, value, 0)],
    ["readAt offset", (value) => ffi.readAt(0, 1, 1, value)],
    ["writeAt", (value) => ffi.writeAt(0, 1, value, 0)],
    ["readVectorAt count", (value) => ffi.readVectorAt(0, 1, value, 1, 0)],
    ["writeVectorAt address", (value) => ffi.writeVectorAt(0, value, 1, 1, 0)],
    ["reserve", (value) => ffi.reserve(value, PAGE_SIZE)],
    ["unmap", (value) => ffi.unmap(value, PAGE_SIZE)],
    ["tryAdvise", (value) => ffi.tryAdvise(PAGE_SIZE, value, 0)],
    ["mincore", (value) => ffi.mincore(value, PAGE_SIZE, new Uint8Array(1))],
  ];
  const before = { ...ffi.syscallCounts };
  for (const [name, call] of calls) {
    for (const value of wrong) {
      let error: unknown;
      try {
        call(value as never);
      } catch (thrown) {
        error = thrown;
      }
      const right = error instanceof RangeError || error instanceof TypeError;
      expect(`${name}(${String(value)}): ${right ? "refused" : error}`).toBe(
        `${name}(${String(value)}): refused`,
      );
    }
  }
  expect(ffi.syscallCounts).toEqual(before);
});

test("an error's code is that of its own call", () => {
  let wrong = 0;
  for (let i = 0; i < 20_000; i++) {
    const [path, code] =
      i % 2 === 0 ? ["/nonexistent/file", "ENOENT"] : ["/proc/self/maps/x", "ENOTDIR"];
    try {
      ffi.openFile(path!, ffi.O_RDONLY);
      wrong++;
    } catch (error) {
      if ((error as ffi.SyscallError).code !== code) wrong++;
    }
    if (i % 4000 === 0) Bun.gc(true);
  }
  expect(wrong).toBe(0);
});

test("a view of 4 GiB reaches its last byte, and no further", () => {
  using file = MemoryFile.create();
  const range = file.allocate(4 * CHUNK_SIZE);
  const view = file.view(range);
  view[0] = 1;
  view[view.length - 1] = 2;
  view[view.length] = 3;
  expect([view.length, view[0], view[view.length - 1], view[view.length]]).toEqual([
    2 ** 32,
    1,
    2,
    undefined as never,
  ]);
  const floats = file.view(range, Float64Array);
  expect(floats.length).toBe(2 ** 29);
  expect(file.totalUsageBytes).toBeLessThanOrEqual(2 * PAGE_SIZE);
});

test("memory without views does not weigh on the collector", () => {
  const external = () => {
    Bun.gc(true);
    return process.memoryUsage().external;
  };
  using file = MemoryFile.create();
  const empty = external();
  const range = file.allocate(64 * CHUNK_SIZE);
  const allocated = external();
  // The tables are 12 bytes a page; they are counted as soon as they are mapped.
  expect(allocated - empty).toBeLessThan(range.length / 200);
  const views = Array.from({ length: 16 }, (_, i) =>
    file.view({ start: i * CHUNK_SIZE, end: i * CHUNK_SIZE + PAGE_SIZE }),
  );
  expect(external() - allocated).toBeLessThan(2 ** 20);
  expect(views.every((view) => view.length === PAGE_SIZE)).toBe(true);
});

test("views end with the file, also in compiled code", () => {
  const file = MemoryFile.create();
  const words = file.view(file.allocate(64 * PAGE_SIZE), Uint32Array).fill(3);
  const sum = (array: Uint32Array): number => {
    let total = 0;
    for (let i = 0; i < 1000; i++) total += array[i] ?? 0;
    return total;
  };
  for (let i = 0; i < 5000; i++) sum(words);
  expect(sum(words)).toBe(3000);
  file.destroy();
  expect(sum(words)).toBe(0);
  expect(() => words.set([1])).toThrow();
  expect(() => new DataView(words.buffer)).toThrow();
});

test("zlib and writes in flight when a file is destroyed finish on its memory", async () => {
  await withDirectory(async (directory) => {
    const file = MemoryFile.create({ name: "in-flight" });
    const view = file.view(file.allocate(4096 * PAGE_SIZE)).fill(5);
    const compressed = promisify(deflate)(view);
    const path = join(directory, "copy");
    const written = Bun.write(path, view);
    file.destroy();
    expect(
      Bun.inflateSync(new Uint8Array(await compressed).subarray(2)).every((byte) => byte === 5),
    ).toBe(true);
    await written;
    const copy = new Uint8Array(readFileSync(path));
    expect(copy.every((byte) => byte === 5)).toBe(true);
    for (let i = 0; i < 400 && isMapped("in-flight"); i++) await Bun.sleep(5);
    expect([isMapped("in-flight"), view.length]).toEqual([false, 0]);
  });
});

test("released and decommitted pages under a live view read as zero", async () => {
  using file = MemoryFile.create();
  const range = file.allocate(16 * PAGE_SIZE);
  const view = file.view(range).fill(1);
  file.decommit({ start: range.start, end: range.start + PAGE_SIZE });
  expect(view[0]).toBe(0);
  file.decRef(range);
  await file.released();
  expect(view.every((byte) => byte === 0)).toBe(true);
});

describe("a buffer that was transferred away", () => {
  const escaping = (how: string) => `
    import { MemoryFile, PAGE_SIZE } from "pgalloc";
    const file = MemoryFile.create({ name: "escaped" });
    const range = file.allocate(4 * PAGE_SIZE);
    const view = file.view(range).fill(7);
    let buffer: ArrayBuffer;
    ${how}
    const bytes = new Uint8Array(buffer);
    bytes[1] = 9;
    if (view.length !== 0 || file.view(range)[1] !== 9) throw new Error("not the same memory");
    file.destroy();
    for (let i = 0; i < 3; i++) { Bun.gc(true); await Bun.sleep(5); }
    const before = bytes[0];
    bytes[0] = 5;
    const other = MemoryFile.create();
    const clean = other.view(other.allocate(4 * PAGE_SIZE)).every((byte) => byte === 0);
    const maps = await Bun.file("/proc/self/maps").text();
    console.log(before, bytes.length, clean, maps.includes("memfd:escaped"));
    other.destroy();
  `;
  const ways = {
    "transfer()": "buffer = view.buffer.transfer();",
    "transferToFixedLength()": "buffer = view.buffer.transferToFixedLength();",
    structuredClone: "buffer = structuredClone(view, { transfer: [view.buffer] }).buffer;",
    postMessage: `
      const { port1, port2 } = new MessageChannel();
      buffer = await new Promise<ArrayBuffer>((resolve) => {
        port2.onmessage = (event) => resolve(event.data.buffer);
        port1.postMessage(view, [view.buffer]);
      });
      port1.close();`,
    "a view of which no trace is left": `
      buffer = (() => {
        const gone = file.view({ start: range.start, end: range.start + PAGE_SIZE * 2 });
        return gone.buffer.transfer();
      })();
      view.buffer.transfer(0);
      for (let i = 0; i < 2000; i++) {
        const end = range.start + PAGE_SIZE * (1 + (i % 3));
        file.view({ start: range.start, end }, i % 2 ? Uint8Array : Int8Array);
      }
      Bun.gc(true);`,
  };
  test.each(Object.entries(ways))(
    "%s: reads as zero once the file is destroyed, and touches no memory",
    async (_, how) => {
      const length = how.includes("gone") ? 2 * PAGE_SIZE : 4 * PAGE_SIZE;
      expect(await runProgram(escaping(how))).toBe(`0 0 ${length} true false\n`);
    },
  );

  test("by a Worker that ended: reads as zero, touches no other file", async () => {
    const worker = `
      import { MemoryFile } from "pgalloc";
      globalThis.onmessage = ({ data: { handle, range } }) => {
        const { buffer } = MemoryFile.attach(handle).view(range).fill(7);
        postMessage(buffer, [buffer]);
        setTimeout(() => process.exit(0), 20);
      };
    `;
    const program = `
      import { MemoryFile, PAGE_SIZE } from "pgalloc";
      const file = MemoryFile.create();
      const { start, end } = file.allocate(4 * PAGE_SIZE);
      const worker = new Worker("DIRECTORY/worker.ts");
      const closed = new Promise((resolve) => worker.addEventListener("close", resolve));
      const got = new Promise<ArrayBuffer>((resolve) => {
        worker.onmessage = ({ data }) => resolve(data);
      });
      worker.postMessage({ handle: file.share(), range: { start, end } });
      const bytes = new Uint8Array(await got);
      await closed;
      file.destroy();
      const before = bytes[0];
      bytes[0] = 5;
      const other = MemoryFile.create();
      const clean = other.view(other.allocate(4 * PAGE_SIZE)).every((byte) => byte === 0);
      console.log(before, bytes.length / PAGE_SIZE, clean);
    `;
    expect(await runProgram(program, { "worker.ts": worker })).toBe("0 0 4 true\n");
  });

  test("a file without escapes gives all its addresses back", async () => {
    const file = MemoryFile.create();
    const view = file.view(file.allocate(PAGE_SIZE)).fill(1);
    const address = ffi.addressOf(view);
    file.destroy();
    expect(() => ffi.mincore(address, PAGE_SIZE, new Uint8Array(1))).toThrow(
      expect.objectContaining({ code: "ENOMEM" }),
    );
  });
});

test("a Worker that does not answer keeps the memory mapped until it does", async () => {
  const worker = `
    import { MemoryFile } from "pgalloc";
    globalThis.onmessage = ({ data: { handle, range, words } }) => {
      const file = MemoryFile.attach(handle);
      const view = file.view(range);
      Atomics.store(words, 0, 1);
      Atomics.notify(words, 0);
      // Busy in one call for as long as the main thread wants.
      let sum = 0;
      while (Atomics.load(words, 1) === 0) sum += view[100] ?? 1000;
      postMessage(view[100]);
      setTimeout(() => postMessage(view.length), 50);
    };
  `;
  const program = `
    import { readFileSync } from "node:fs";
    import { MemoryFile, PAGE_SIZE } from "pgalloc";
    const file = MemoryFile.create({ name: "busy" });
    const range = file.allocate(16 * PAGE_SIZE);
    file.view(range).fill(6);
    const words = new Int32Array(new SharedArrayBuffer(8));
    const worker = new Worker("DIRECTORY/worker.ts");
    const answers: number[] = [];
    const done = new Promise<void>((resolve) => {
      worker.onmessage = ({ data }) => { if (answers.push(data) === 2) resolve(); };
    });
    const { start, end } = range;
    worker.postMessage({ handle: file.share(), range: { start, end }, words });
    Atomics.wait(words, 0, 0);
    file.destroy();
    const isMapped = () => readFileSync("/proc/self/maps", "utf8").includes("memfd:busy");
    await Bun.sleep(100);
    const during = isMapped();
    Atomics.store(words, 1, 1);
    await done;
    for (let i = 0; i < 200 && isMapped(); i++) await Bun.sleep(5);
    console.log(during, answers.join(), isMapped());
    worker.terminate();
  `;
  expect(await runProgram(program, { "worker.ts": worker })).toBe("0 true 6,0 false\n");
});
