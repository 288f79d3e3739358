/**
 * Loads through page sources: contents in compressed frames, checksums that are read on first use,
 * and a program's own source that answers late, short, damaged or never.
 */
import { afterEach, describe, expect, test } from "bun:test";
import { CodecId } from "../../src/codec/codec.ts";
import { coreOf } from "../../src/file/memory-file.ts";
import { HUGE_PAGE_SIZE, PAGE_SIZE } from "../../src/index.ts";
import { threadCount } from "../../src/threads/pool.ts";
import type { MemorySourceOptions } from "./support/memory-source.ts";
import {
  all,
  dense,
  load,
  makeImage,
  pageBytes,
  PAGES,
  PAGES_PER_UNIT,
  pages,
  sourceOf,
  wrongPages,
} from "./support/images.ts";
import { hasLz4 } from "../support/codecs.ts";

afterEach(async () => {
  while (threadCount().busy > 0) await Bun.sleep(1);
});

const codecs = [
  ["raw", CodecId.Raw],
  ["lz4", CodecId.Lz4],
  ["zstd", CodecId.Zstd],
] as const;

const opened = codecs.filter(([name]) => name !== "lz4" || hasLz4);

describe.each(opened)("frames in %s", (_, codec) => {
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
    // Pages of frames that are not live stay unchanged.
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

  test.each([0, -1, 0.5, Number.NaN])(
    "a source that finds %d reads useful loads",
    async (count) => {
      const image = dense(CodecId.Raw);
      using file = load(image, sourceOf(image, { usefulReads: count }));
      await file.awaitLoad();
      expect(wrongPages(file, image)).toEqual([]);
    },
  );

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
