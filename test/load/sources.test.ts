/**
 * Loads through page sources: contents in compressed frames, checksums that are read on first use,
 * and a program's own source that answers late, short, damaged or never.
 */
import { afterEach, describe, expect, test } from "bun:test";
import { addressOf } from "../../ffi/index.ts";
import { CodecId } from "../../src/codec/codec.ts";
import { openCodec } from "../../src/codec/open-codec.ts";
import { BLOCK_PAGES, type ColumnPlace, type PageMap } from "../../src/checkpoint/page-map.ts";
import { USED } from "../../src/allocator/states.ts";
import { coreOf, fileOver } from "../../src/file/memory-file.ts";
import { HUGE_PAGE_SIZE, type MemoryFile, PAGE_SIZE } from "../../src/index.ts";
import { restoreFiles } from "../../src/restore/restore.ts";
import type { ModuleSource } from "../../src/source/index.ts";
import { threadCount } from "../../src/threads/pool.ts";
import type { MemorySourceOptions } from "./support/memory-source.ts";

const MODULE = new URL("./support/memory-source.ts", import.meta.url).href;
const PAGES_PER_UNIT = HUGE_PAGE_SIZE / PAGE_SIZE;
const UNITS = 5;
const PAGES = UNITS * PAGES_PER_UNIT;

afterEach(async () => {
  while (threadCount().busy > 0) await Bun.sleep(1);
});

/** Page `page` of the image: compressible, and different from every other. */
function pageBytes(page: number): Uint8Array {
  return new Uint8Array(new Uint32Array(1024).fill(page * 7 + 1).buffer);
}

interface Image {
  readonly map: PageMap;
  readonly manifest: Uint8Array;
  readonly checksums: ColumnPlace;
  readonly contents: Uint8Array;
}

interface FramePages {
  readonly start: number;
  readonly pages: number;
  /** Pages of the frame that are live, as [first, count]. */
  readonly live: readonly (readonly [number, number])[];
}

/** Encodes frames one after the other, at multiples of the page size. */
function makeImage(frames: readonly FramePages[], codec: CodecId): Image {
  const extents: [number, number, number, number][] = [];
  const rows: { offset: number; stored: number; pages: number }[] = [];
  const chunks: Uint8Array[] = [];
  let offset = 0;
  for (const [row, { start, pages, live }] of frames.entries()) {
    const source = new Uint8Array(new SharedArrayBuffer(pages * PAGE_SIZE));
    for (let i = 0; i < pages; i++) source.set(pageBytes(start + i), i * PAGE_SIZE);
    const stored = new Uint8Array(new SharedArrayBuffer(2 * source.byteLength));
    const bytes = openCodec(codec).encode({
      source: addressOf(source),
      lengthBytes: source.byteLength,
      destination: addressOf(stored),
      capacityBytes: stored.byteLength,
    });
    const padded = Math.ceil(bytes / PAGE_SIZE) * PAGE_SIZE;
    chunks.push(new Uint8Array(stored.subarray(0, padded)));
    rows.push({ offset, stored: bytes, pages });
    offset += padded;
    for (const [first, count] of live) extents.push([start + first, count, row, first]);
  }
  extents.sort(([a], [b]) => a - b);
  const crcs = extents.flatMap(([start, count]) =>
    Array.from({ length: count }, (_, i) => Bun.hash.crc32(pageBytes(start + i))),
  );
  const column = new Uint8Array(Uint32Array.from(crcs).buffer);
  const blocks = Math.ceil(crcs.length / BLOCK_PAGES);
  const manifest = new Uint8Array(100 + column.byteLength);
  manifest.set(column, 100);
  return {
    map: {
      extents: {
        start: Uint32Array.from(extents, (row) => row[0]),
        length: Uint32Array.from(extents, (row) => row[1]),
        frame: Uint32Array.from(extents, (row) => row[2]),
        framePage: Uint32Array.from(extents, (row) => row[3]),
      },
      frames: {
        content: new Uint32Array(rows.length).fill(1),
        codec: new Uint32Array(rows.length).fill(codec),
        offset: Float64Array.from(rows, (row) => row.offset),
        storedBytes: Float64Array.from(rows, (row) => row.stored),
        pages: Uint32Array.from(rows, (row) => row.pages),
      },
    },
    manifest,
    checksums: {
      offset: 100,
      count: crcs.length,
      widthBytes: 4,
      blockCrcs: Uint32Array.from({ length: blocks }, (_, block) =>
        Bun.hash.crc32(column.subarray(block * 4 * BLOCK_PAGES, (block + 1) * 4 * BLOCK_PAGES)),
      ),
    },
    contents: Buffer.concat(chunks),
  };
}

function dense(codec: CodecId): Image {
  return makeImage(
    Array.from({ length: UNITS }, (_, unit) => ({
      start: unit * PAGES_PER_UNIT,
      pages: PAGES_PER_UNIT,
      live: [[0, PAGES_PER_UNIT]] as const,
    })),
    codec,
  );
}

function sourceOf(image: Image, options: Partial<MemorySourceOptions> = {}): ModuleSource {
  const share = (bytes: Uint8Array) => {
    const shared = new Uint8Array(new SharedArrayBuffer(bytes.byteLength));
    shared.set(bytes);
    return shared;
  };
  const contents = [share(image.manifest), share(image.contents)];
  return { kind: "module", module: MODULE, options: { contents, ...options }, names: ["m", "p"] };
}

function load(image: Image, source: ModuleSource): MemoryFile {
  const { cores } = restoreFiles(
    source,
    [
      {
        image: {
          chunkHuge: Uint8Array.of(0),
          runs: {
            start: Uint32Array.of(0),
            length: Uint32Array.of(PAGES),
            state: Uint32Array.of(USED),
            refs: Uint32Array.of(1),
            kind: Uint32Array.of(0),
            group: Uint32Array.of(0),
          },
        },
        map: image.map,
        checksums: image.checksums,
        options: {},
      },
    ],
    { background: true },
  );
  return fileOver(cores[0]!, null);
}

const all = { start: 0, end: PAGES * PAGE_SIZE };
const pages = (first: number, count = 1) => ({
  start: first * PAGE_SIZE,
  end: (first + count) * PAGE_SIZE,
});

/** Pages with contents that differ from the image's. */
function wrongPages(file: MemoryFile, { map }: Image): number[] {
  const wrong: number[] = [];
  const { start, length } = map.extents;
  const bytes = file.view(all);
  for (let extent = 0; extent < start.length; extent++)
    for (let page = start[extent]!; page < start[extent]! + length[extent]!; page++) {
      const got = bytes.subarray(page * PAGE_SIZE, (page + 1) * PAGE_SIZE);
      if (Buffer.compare(got, pageBytes(page)) !== 0) wrong.push(page);
    }
  return wrong;
}

const codecs = [
  ["raw", CodecId.Raw],
  ["lz4", CodecId.Lz4],
  ["zstd", CodecId.Zstd],
] as const;

describe.each(codecs)("frames in %s", (_, codec) => {
  test("whole units are loaded and checked", async () => {
    const image = dense(codec);
    using file = load(image, sourceOf(image));
    await file.awaitLoad();
    expect(wrongPages(file, image)).toEqual([]);
    expect(file.loadStats()).toMatchObject({ loadedBytes: all.end, failedBytes: 0, error: null });
  });

  test("an awaited page comes with the rest of its frame, before the background pass", async () => {
    const image = dense(codec);
    using file = load(image, sourceOf(image, { delayMs: 3 }));
    await file.awaitLoad(pages(PAGES - 1));
    expect(file.view(pages(PAGES - 1))[0]).toBe(pageBytes(PAGES - 1)[0]!);
    if (codec !== CodecId.Raw)
      expect(file.isLoaded(pages(PAGES - PAGES_PER_UNIT, PAGES_PER_UNIT))).toBe(true);
    await file.awaitLoad();
    expect(wrongPages(file, image)).toEqual([]);
  });

  test("frames that are live in part, and a unit of several frames", async () => {
    const image = makeImage(
      [
        {
          start: 0,
          pages: 300,
          live: [
            [0, 10],
            [20, 30],
            [299, 1],
          ],
        },
        {
          start: 10,
          pages: 150,
          live: [
            [0, 10],
            [40, 90],
          ],
        },
        { start: 300, pages: 212, live: [[0, 212]] },
        { start: 2 * PAGES_PER_UNIT + 5, pages: 7, live: [[3, 1]] },
      ],
      codec,
    );
    using file = load(image, sourceOf(image));
    await file.awaitLoad();
    expect(wrongPages(file, image)).toEqual([]);
    const bytes = file.view(all);
    // Pages of frames that are not live stay what they are.
    expect(bytes[(2 * PAGES_PER_UNIT + 5) * PAGE_SIZE]).toBe(0);
  });

  test("a program's newer pages are never overwritten", async () => {
    const image = dense(codec);
    using file = load(image, sourceOf(image, { delayMs: 5 }));
    const freed = [pages(7), pages(100, 20), pages(2 * PAGES_PER_UNIT + 1, 3)];
    for (const range of freed) {
      file.decommit(range);
      file.view(range).fill(0xee);
    }
    await file.awaitLoad();
    for (const range of freed) expect(file.view(range).every((byte) => byte === 0xee)).toBe(true);
    const changed = freed.reduce((sum, { start, end }) => sum + (end - start) / PAGE_SIZE, 0);
    expect(wrongPages(file, image)).toHaveLength(changed);
  });

  test("a damaged frame fails its own pages, and a retry reads it again", async () => {
    const image = dense(codec);
    const broken = image.map.frames.offset[3]! + 100;
    const source = sourceOf(image);
    const { contents } = source.options as MemorySourceOptions;
    contents[1]![broken]! ^= 0xff;
    using file = load(image, source);
    const error = await file.awaitLoad().catch((failure: unknown) => failure);
    expect(error).toMatchObject({ code: "ERR_CORRUPT_CHECKPOINT", path: "p" });
    await file.awaitLoad(pages(0, 3 * PAGES_PER_UNIT));
    while (file.isLoading) await Bun.sleep(1);
    expect(file.isLoaded(pages(4 * PAGES_PER_UNIT, PAGES_PER_UNIT))).toBe(true);
    contents[1]![broken]! ^= 0xff;
    await file.retryLoad();
    expect(wrongPages(file, image)).toEqual([]);
  });
});

describe("checksums", () => {
  test("a damaged block fails the pages that it covers", async () => {
    const image = dense(CodecId.Raw);
    const source = sourceOf(image);
    const { contents } = source.options as MemorySourceOptions;
    contents[0]![150]! ^= 1;
    using file = load(image, source);
    await expect(file.awaitLoad()).rejects.toMatchObject({ code: "ERR_CORRUPT_CHECKPOINT" });
    while (file.isLoading) await Bun.sleep(1);
    expect(file.loadStats()).toMatchObject({ failedBytes: all.end, loadedBytes: 0 });
    contents[0]![150]! ^= 1;
    await file.retryLoad();
    expect(wrongPages(file, image)).toEqual([]);
  });

  test("a block is read once or twice, whatever reads it", async () => {
    const image = dense(CodecId.Raw);
    const reads = new SharedArrayBuffer(8);
    using file = load(image, sourceOf(image, { reads }));
    await file.awaitLoad();
    expect(new Int32Array(reads)[0]).toBeGreaterThanOrEqual(1);
    // The background and the demand thread may both find it missing.
    expect(new Int32Array(reads)[0]).toBeLessThanOrEqual(URING_DEPTH);
  });
});

/** Units that a background thread may have begun before the first block arrives. */
const URING_DEPTH = 8;

describe("a source of the program's own", () => {
  test("awaitLoadSync waits for the loading threads", () => {
    const image = dense(CodecId.Raw);
    using file = load(image, sourceOf(image, { delayMs: 2 }));
    file.awaitLoadSync(pages(PAGES - 3, 3));
    expect(file.view(pages(PAGES - 3))[0]).toBe(pageBytes(PAGES - 3)[0]!);
  });

  test("a failed read is told with the source's code, and can be tried again", async () => {
    const image = dense(CodecId.Raw);
    const failing = new SharedArrayBuffer(4);
    new Int32Array(failing)[0] = 1;
    using file = load(image, sourceOf(image, { failing }));
    await expect(file.awaitLoad(pages(3))).rejects.toMatchObject({
      name: "PageReadError",
      code: "ESCRIPT",
      path: "p",
    });
    while (file.isLoading) await Bun.sleep(1);
    new Int32Array(failing)[0] = 0;
    await file.retryLoad();
    expect(wrongPages(file, image)).toEqual([]);
  });

  test("a content that ends early is damage", async () => {
    const image = dense(CodecId.Raw);
    const short = { ...image, contents: image.contents.subarray(0, 3 * HUGE_PAGE_SIZE + 5000) };
    using file = load(image, sourceOf(short));
    await expect(file.awaitLoad()).rejects.toMatchObject({ code: "ERR_CORRUPT_CHECKPOINT" });
    await file.awaitLoad(pages(3 * PAGES_PER_UNIT));
  });

  test("a source that never answers: abort and destroy end all waits", async () => {
    const image = dense(CodecId.Raw);
    const aborted = load(image, sourceOf(image, { never: true }));
    const waits = [aborted.awaitLoad(), aborted.awaitLoad(pages(0))];
    const settled = Promise.allSettled(waits);
    await Bun.sleep(20);
    coreOf(aborted).loader!.abort(new Error("enough"));
    for (const answer of await settled)
      expect(answer).toMatchObject({ reason: { message: "enough" } });
    aborted.destroy();
    const destroyed = load(image, sourceOf(image, { never: true }));
    const wait = destroyed.awaitLoad();
    await Bun.sleep(20);
    destroyed.destroy();
    await expect(wait).rejects.toMatchObject({ code: "ERR_DESTROYED" });
    // The threads have left as well.
    while (threadCount().busy > 0) await Bun.sleep(1);
  });

  test("a module that cannot be opened: the waiters hear of it", async () => {
    const image = dense(CodecId.Raw);
    using file = load(image, { kind: "module", module: "data:text/javascript," });
    await expect(file.awaitLoad()).rejects.toThrow("to export a function openReader");
  });
});
