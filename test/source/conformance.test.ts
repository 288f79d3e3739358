/** One suite over every page source, and over a module that misbehaves. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  closeFile,
  errnoNumber,
  mapAnonymous,
  bufferAt,
  detach,
  O_RDONLY,
  openFile,
  reopenDirect,
  unmap,
  uringUnavailable,
} from "../../ffi/index.ts";
import { canMap, mapContent } from "../../src/source/describe.ts";
import { fileSource, holdFiles, releaseFiles } from "../../src/source/file-source.ts";
import {
  type FileSource,
  type ModuleSource,
  openReader,
  type PageSource,
  readContent,
  type SourceReader,
} from "../../src/source/index.ts";
import { PAGE_SIZE } from "../../src/index.ts";
import type { Faults } from "../safety/support/fault-control.ts";
import { S3Server } from "../http/support/s3-server.ts";
import { beginFaults } from "../safety/support/in-process.ts";
import { remoteSource } from "./support/remote.ts";
import { byteAt, type ScriptedOptions } from "./support/scripted-source.ts";

const SIZES = [10_000, 128 * PAGE_SIZE, 3 * PAGE_SIZE + 17];
const MEMORY_BYTES = 128 * PAGE_SIZE;
const MODULE = new URL("./support/scripted-source.ts", import.meta.url).href;

let directory: string;
let memory: number;
let server: S3Server;
let faults: Faults;
let endFaults: () => Promise<void>;

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), "pgalloc-source-"));
  for (const [content, size] of SIZES.entries())
    writeFileSync(join(directory, `${content}`), expected(content, 0, size));
  server = await S3Server.start();
  for (const [content, size] of SIZES.entries())
    server.put(`${content}`, expected(content, 0, size));
  memory = mapAnonymous(MEMORY_BYTES);
  ({ faults, end: endFaults } = await beginFaults());
});
afterAll(async () => {
  await endFaults();
  await server[Symbol.asyncDispose]();
  unmap(memory, MEMORY_BYTES);
  rmSync(directory, { recursive: true });
});

function expected(content: number, offset: number, lengthBytes: number): Uint8Array {
  return Uint8Array.from({ length: lengthBytes }, (_, i) => byteAt(content, offset + i));
}

function openFiles(engine: "cache" | "direct" | "uring"): FileSource {
  const source = fileSource(
    SIZES.map((_, i) => ({
      fd: openFile(join(directory, `${i}`), O_RDONLY),
      path: join(directory, `${i}`),
    })),
  );
  if (engine === "cache") return source;
  const contents = source.contents.map((content) => ({
    ...content,
    directFd: engine === "direct" ? reopenDirect(content.fd) : -1,
  }));
  return { ...source, contents, engine: "uring" };
}

function scripted(options: Partial<ScriptedOptions> = {}): ModuleSource {
  return { kind: "module", module: MODULE, options: { sizes: SIZES, ...options } };
}

const names = SIZES.map((_, content) => `${content}`);

const sources: [string, () => PageSource | Promise<PageSource>][] = [
  ["HTTP server", () => remoteSource(server, names, { isSigned: false })],
  ["S3", () => remoteSource(server, names)],
  ["page cache", () => openFiles("cache")],
  ["module", () => scripted()],
  ["module that answers late", () => scripted({ behaviour: "late" })],
  ["module that blocks", () => scripted({ behaviour: "blocks" })],
];
if (uringUnavailable() === null) {
  sources.push(["io_uring", () => openFiles("uring")]);
  sources.push(["io_uring and O_DIRECT", () => openFiles("direct")]);
}

async function withReader(
  opened: PageSource | Promise<PageSource>,
  use: (reader: SourceReader) => Promise<void>,
): Promise<void> {
  const source = await opened;
  const reader = await openReader(source, "background");
  try {
    await use(reader);
  } finally {
    await reader.close();
    if (source.kind === "file") releaseFiles(source);
  }
}

async function next(reader: SourceReader, count: number) {
  return reader.capabilities.mayBlock ? reader.wait(count) : await reader.waitAsync(count);
}

/** The present bytes of native memory. */
function bytesAt(address: number, lengthBytes: number): Uint8Array {
  const buffer = bufferAt(address, lengthBytes);
  const bytes = new Uint8Array(buffer).slice();
  detach(buffer);
  return bytes;
}

describe.each(sources)("%s", (_, open) => {
  test("has a description of plain data that states its capabilities", async () => {
    await withReader(open(), async (reader) => {
      const { capabilities } = reader;
      expect(capabilities.readsInFlight).toBeGreaterThanOrEqual(1);
      expect(capabilities.readBytesMax % PAGE_SIZE).toBe(0);
      expect(capabilities.readBytesMax).toBeGreaterThanOrEqual(PAGE_SIZE);
    });
    const source = await open();
    expect(structuredClone(source).kind).toBe(source.kind);
    if (source.kind === "file") releaseFiles(source);
  });

  test("maps bytes of a content if it is a file", async () => {
    const source = await open();
    expect(canMap(source, 1)).toBe(source.kind === "file");
    expect(canMap(source, SIZES.length)).toBe(false);
    if (source.kind !== "file") return;
    const lengthBytes = 4 * PAGE_SIZE;
    const address = mapAnonymous(lengthBytes);
    try {
      mapContent(source, { content: 1, offset: 8 * PAGE_SIZE, lengthBytes }, address);
      expect(bytesAt(address, lengthBytes)).toEqual(expected(1, 8 * PAGE_SIZE, lengthBytes));
    } finally {
      unmap(address, lengthBytes);
      releaseFiles(source);
    }
  });

  test("reads each piece of memory in order", async () => {
    await withReader(open(), async (reader) => {
      const iovecs = Float64Array.of(
        ...[memory, PAGE_SIZE],
        ...[memory + 5 * PAGE_SIZE, 2 * PAGE_SIZE],
        ...[memory + 2 * PAGE_SIZE, PAGE_SIZE],
      );
      reader.read(41, 1, 8 * PAGE_SIZE, iovecs, 3);
      expect(reader.inFlight).toBe(1);
      const done = await next(reader, 1);
      expect([done.count, done.ids[0], done.bytes[0], done.errors[0]]).toEqual([
        1,
        41,
        4 * PAGE_SIZE,
        null,
      ]);
      expect(reader.inFlight).toBe(0);
      const contents = expected(1, 8 * PAGE_SIZE, 4 * PAGE_SIZE);
      expect(bytesAt(memory, PAGE_SIZE)).toEqual(contents.subarray(0, PAGE_SIZE));
      expect(bytesAt(memory + 5 * PAGE_SIZE, 2 * PAGE_SIZE)).toEqual(
        contents.subarray(PAGE_SIZE, 3 * PAGE_SIZE),
      );
      expect(bytesAt(memory + 2 * PAGE_SIZE, PAGE_SIZE)).toEqual(contents.subarray(3 * PAGE_SIZE));
    });
  });

  test("reads the same bytes without alignment", async () => {
    await withReader(open(), async (reader) => {
      reader.read(0, 1, 1234, Float64Array.of(memory + 7, 3001), 1);
      expect((await next(reader, 1)).bytes[0]).toBe(3001);
      expect(bytesAt(memory + 7, 3001)).toEqual(expected(1, 1234, 3001));
    });
  });

  test("runs as many reads as readsInFlight at once, and no more", async () => {
    await withReader(open(), async (reader) => {
      const { readsInFlight } = reader.capabilities;
      for (let id = 0; id < readsInFlight; id++)
        reader.read(id, 1, id * PAGE_SIZE, Float64Array.of(memory + id * PAGE_SIZE, PAGE_SIZE), 1);
      expect(() => reader.read(readsInFlight, 1, 0, Float64Array.of(memory, 1), 1)).toThrow(
        RangeError,
      );
      const ids = new Set<number>();
      while (ids.size < readsInFlight) {
        const done = await next(reader, 1);
        for (let i = 0; i < done.count; i++) ids.add(done.ids[i]!);
      }
      expect(reader.inFlight).toBe(0);
      for (let id = 0; id < readsInFlight; id++)
        expect(bytesAt(memory + id * PAGE_SIZE, PAGE_SIZE)).toEqual(
          expected(1, id * PAGE_SIZE, PAGE_SIZE),
        );
    });
  });

  test("reads fewer bytes at the end of a content, without an error", async () => {
    await withReader(open(), async (reader) => {
      reader.read(0, 2, 3 * PAGE_SIZE, Float64Array.of(memory, PAGE_SIZE), 1);
      const done = await next(reader, 1);
      expect([done.bytes[0], done.errors[0]]).toEqual([17, null]);
    });
  });

  test("returns a content's bytes from readContent", async () => {
    await withReader(open(), async (reader) => {
      const whole = await readContent(reader, { content: 0, offset: 0, lengthBytes: 20_000 });
      expect(whole).toEqual(expected(0, 0, SIZES[0]!) as typeof whole);
    });
  });

  test("ends reads under way at close", async () => {
    const source = await open();
    const reader = await openReader(source, "demand");
    reader.read(0, 1, 0, Float64Array.of(memory, MEMORY_BYTES), 1);
    await reader.close();
    await reader.close();
    expect(() => reader.read(1, 1, 0, Float64Array.of(memory, 1), 1)).toThrow();
    if (source.kind === "file") releaseFiles(source);
  });
});

describe("files", () => {
  test("fail with a SyscallError with path and offset", async () => {
    for (const engine of ["cache", "uring"] as const) {
      if (engine === "uring" && uringUnavailable() !== null) continue;
      faults.arm({
        action: "Fail",
        calls: ["pread", "preadv", "uring_read", "uring_readv"],
        value: errnoNumber("EIO"),
      });
      await withReader(openFiles(engine), async (reader) => {
        reader.read(0, 1, PAGE_SIZE, Float64Array.of(memory, PAGE_SIZE), 1);
        const done = reader.wait(1);
        expect(done.bytes[0]).toBe(0);
        expect(done.errors[0]).toMatchObject({ code: "EIO", path: join(directory, "1") });
        expect(done.errors[0]!.message).toContain(`offset ${PAGE_SIZE}`);
      });
      faults.disarm();
    }
  });

  test.skipIf(uringUnavailable() !== null)(
    "use the page cache if the file system refuses direct reads",
    async () => {
      const probe = openFiles("direct");
      const isDirect = probe.contents.every(({ directFd }) => directFd >= 0);
      releaseFiles(probe);
      if (!isDirect) return console.warn("skipped: no O_DIRECT on this file system");
      faults.arm({
        action: "Fail",
        calls: ["uring_read", "uring_readv"],
        value: errnoNumber("EINVAL"),
        until: 1,
      });
      await withReader(openFiles("direct"), async (reader) => {
        reader.read(7, 1, PAGE_SIZE, Float64Array.of(memory, PAGE_SIZE), 1);
        const done = reader.wait(1);
        expect([done.ids[0], done.bytes[0], done.errors[0]]).toEqual([7, PAGE_SIZE, null]);
        expect(bytesAt(memory, PAGE_SIZE)).toEqual(expected(1, PAGE_SIZE, PAGE_SIZE));
      });
      expect(faults.hits).toBe(1);
      faults.disarm();
    },
  );

  test("close their descriptors with the last release", () => {
    const fd = openFile(join(directory, "0"), O_RDONLY);
    const source = fileSource([{ fd, path: "0" }]);
    holdFiles(source);
    releaseFiles(source);
    closeFile(openFile(`/proc/self/fd/${fd}`, O_RDONLY));
    releaseFiles(source);
    expect(() => openFile(`/proc/self/fd/${fd}`, O_RDONLY)).toThrow("ENOENT");
  });
});

describe("a module that misbehaves", () => {
  const cases = [
    ["throws", { message: "scripted failure" }],
    ["rejects", { message: "scripted", code: "ESCRIPT" }],
    ["too many", { name: "TypeError" }],
    ["no number", { name: "TypeError" }],
  ] as const;
  test.each(cases)("fails the read, and the reader continues: %s", async (behaviour, error) => {
    await withReader(scripted({ behaviour, from: PAGE_SIZE }), async (reader) => {
      reader.read(0, 1, PAGE_SIZE, Float64Array.of(memory, PAGE_SIZE), 1);
      const failed = await reader.waitAsync(1);
      expect(failed.bytes[0]).toBe(0);
      expect(failed.errors[0]).toMatchObject(error);
      reader.read(1, 1, 0, Float64Array.of(memory, PAGE_SIZE), 1);
      expect((await reader.waitAsync(1)).bytes[0]).toBe(PAGE_SIZE);
    });
  });

  test("never answers: close ends the read, and its waiter gets an error", async () => {
    const counts = new SharedArrayBuffer(8);
    const reader = await openReader(scripted({ behaviour: "never", counts }), "background");
    reader.read(0, 1, 0, Float64Array.of(memory, PAGE_SIZE), 1);
    const waiting = reader.waitAsync(1);
    await reader.close();
    expect((await waiting).errors[0]).toMatchObject({ code: "ERR_DESTROYED" });
    expect([...new Int32Array(counts)]).toEqual([1, 1]);
  });

  test("answers after close: memory does not change", async () => {
    const reader = await openReader(scripted({ behaviour: "late" }), "background");
    const buffer = bufferAt(memory, PAGE_SIZE);
    new Uint8Array(buffer).fill(9);
    reader.read(0, 1, 0, Float64Array.of(memory, PAGE_SIZE), 1);
    await reader.close();
    await Bun.sleep(30);
    expect(new Uint8Array(buffer).every((byte) => byte === 9)).toBe(true);
    detach(buffer);
  });

  test("exports no openReader: a TypeError names it", async () => {
    const source: ModuleSource = { kind: "module", module: import.meta.resolve("node:os") };
    expect(openReader(source, "demand")).rejects.toThrow("to export a function openReader");
  });
});
