/** One suite over every sink: the contract of save/sink.ts. */
import { afterAll, afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { addressOf } from "../../ffi/index.ts";
import { USED } from "../../src/allocator/states.ts";
import { encodeManifest } from "../../src/checkpoint/encode.ts";
import { hashPage, type PageFile } from "../../src/checkpoint/format.ts";
import { CodecId } from "../../src/codec/codec.ts";
import { MemoryFile, PAGE_SIZE } from "../../src/index.ts";
import { openSink } from "../../src/save/open-sink.ts";
import { openWriter } from "../../src/save/open-writer.ts";
import type { Commit, Sink } from "../../src/save/sink.ts";
import { terminateIdleThreads } from "../../src/threads/idle.ts";
import { pattern } from "../aio/support/memory.ts";
import { S3Server } from "../http/support/s3-server.ts";
import { namesIn, PLACE, s3Of } from "../remote/support/store.ts";

const PAGES = 40;
const BYTES = PAGES * PAGE_SIZE;
const HASH_SEED = 7;

let directory: string;
let server: S3Server;
beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), "pgalloc-sinks-"));
  server = await S3Server.start();
});
afterEach(async () => {
  await server[Symbol.asyncDispose]();
  rmSync(directory, { recursive: true });
});
afterAll(() => terminateIdleThreads());

/** Contents that differ by checkpoint, in memory that does not move. */
function contentsOf(id: bigint): Uint8Array {
  const bytes = new Uint8Array(new SharedArrayBuffer(BYTES));
  bytes.set(pattern(BYTES, Number(id)));
  return bytes;
}

/** A manifest of one file, whose pages have these contents at the beginning of `pageFile`. */
function manifestOf(id: bigint, pageFile: PageFile, contents: Uint8Array) {
  const pages = Array.from({ length: PAGES }, (_, i) =>
    contents.slice(i * PAGE_SIZE, (i + 1) * PAGE_SIZE),
  );
  const one = (value: number) => Uint32Array.of(value);
  const file = {
    name: "main",
    chunkHuge: Uint8Array.of(0),
    runs: {
      ...{ start: one(0), length: one(PAGES), state: one(USED) },
      ...{ refs: one(1), kind: one(1), group: one(0) },
    },
    pageMap: {
      extents: { start: one(0), length: one(PAGES), frame: one(0), framePage: one(0) },
      frames: {
        ...{ content: one(1), codec: one(CodecId.Raw), pages: one(PAGES) },
        ...{ offset: Float64Array.of(0), storedBytes: Float64Array.of(BYTES) },
      },
    },
    userData: null,
    crcs: Uint32Array.from(pages, (page) => Bun.hash.crc32(page)),
    hashes: BigUint64Array.from(pages, (page) => hashPage(page, HASH_SEED)),
  };
  const manifest = {
    id,
    hashSeed: HASH_SEED,
    pageFiles: [pageFile],
    files: [file],
    userData: null,
  };
  return { manifest: encodeManifest(manifest), pageFiles: manifest.pageFiles };
}

/** Writes contents as two writing threads would: the second half first. */
async function writePages(sink: Sink, id: bigint, contents: Uint8Array): Promise<PageFile> {
  const description = structuredClone(await sink.beginPages(id, BYTES));
  const writer = await openWriter(description);
  const half = BYTES / 2;
  writer.reserve(half);
  writer.reserve(BYTES);
  const address = addressOf(contents);
  await Promise.all([writer.write(address + half, half, half), writer.write(address, half, 0)]);
  await writer.close();
  // Read here, so that the collector leaves the memory to the writer until now.
  return { id, sizeBytes: contents.byteLength };
}

interface Place {
  readonly where: string;
  readonly names: () => string[];
  readonly s3?: ReturnType<typeof s3Of>;
}

const places: [string, () => Place][] = [
  ["directory", () => ({ where: directory, names: () => readdirSync(directory).sort() })],
  ["S3", () => ({ where: PLACE, names: () => namesIn(server), s3: s3Of(server) })],
];

describe.each(places)("%s", (_, placeOf) => {
  async function withSink<T>(use: (sink: Sink) => Promise<T>): Promise<T> {
    const { where, s3 } = placeOf();
    const sink = await openSink(where, { wantsBase: true, ...(s3 && { s3 }) });
    try {
      return await use(sink);
    } finally {
      await sink.close();
    }
  }

  async function save(id: bigint): Promise<void> {
    await withSink(async (sink) => {
      const contents = contentsOf(id);
      const written = await writePages(sink, id, contents);
      const makeManifest: Commit["makeManifest"] = async () => manifestOf(id, written, contents);
      await sink.commit({ id, written, makeManifest });
    });
  }

  async function expectContents(id: bigint): Promise<void> {
    const { where, s3 } = placeOf();
    using file = await MemoryFile.loadFrom(where, s3 && { s3 });
    expect(Buffer.compare(file.view({ start: 0, end: BYTES }), contentsOf(id))).toBe(0);
  }

  test("commit makes the written contents the place's checkpoint", async () => {
    await withSink(async (sink) => expect(sink.base).toBeNull());
    await save(1n);
    await expectContents(1n);
    expect(placeOf().names()).toHaveLength(2);
  });

  test("base is the present checkpoint, and a later commit replaces it", async () => {
    await save(1n);
    await withSink(async (sink) => {
      expect(sink.base?.manifest.id).toBe(1n);
      expect(sink.base?.manifest.pageFiles).toEqual([{ id: 1n, sizeBytes: BYTES }]);
    });
    await save(2n);
    await expectContents(2n);
    await withSink(async (sink) => expect(sink.base?.manifest.id).toBe(2n));
  });

  test("close without commit leaves the place as it was", async () => {
    await save(1n);
    const before = placeOf().names();
    await withSink(async (sink) => {
      await writePages(sink, 2n, contentsOf(2n));
    });
    expect(placeOf().names()).toEqual(before);
    await expectContents(1n);
  });

  test("keepBase leaves the place as it was", async () => {
    await save(1n);
    const before = placeOf().names();
    await withSink(async (sink) => {
      await sink.beginPages(2n, 0);
      await sink.keepBase();
    });
    expect(placeOf().names()).toEqual(before);
    await expectContents(1n);
  });

  test("a commit whose manifest cannot be made leaves the place as it was", async () => {
    await save(1n);
    const before = placeOf().names();
    await withSink(async (sink) => {
      const written = await writePages(sink, 2n, contentsOf(2n));
      const makeManifest = () => Promise.reject(new Error("no manifest"));
      const failed = sink.commit({ id: 2n, written, makeManifest });
      await expect(failed).rejects.toThrow("no manifest");
    });
    expect(placeOf().names()).toEqual(before);
    await expectContents(1n);
  });

  test("a commit that names only page files of the base leaves no other", async () => {
    await save(1n);
    await withSink(async (sink) => {
      await writePages(sink, 2n, contentsOf(2n));
      const makeManifest: Commit["makeManifest"] = async () =>
        manifestOf(2n, { id: 1n, sizeBytes: BYTES }, contentsOf(1n));
      await sink.commit({ id: 2n, written: null, makeManifest });
    });
    await expectContents(1n);
    const pageFiles = placeOf()
      .names()
      .filter((name) => name.startsWith("pages-"));
    expect(pageFiles).toEqual(["pages-0000000000000001"]);
  });
});
