/** Integrity: every changed byte of a checkpoint is noticed, and damages only its own page. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { cpSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { setFaultHook } from "../../ffi/index.ts";
import { readHashes } from "../../src/checkpoint/columns.ts";
import { closeContents, openCheckpoint } from "../../src/checkpoint/directory.ts";
import type { ColumnPlace } from "../../src/checkpoint/page-map.ts";
import { HEADER_BYTES, HeaderField } from "../../src/checkpoint/format.ts";
import {
  CorruptCheckpointError,
  FileRange,
  HUGE_PAGE_SIZE,
  MemoryFile,
  NotLoadedError,
  PAGE_SIZE,
} from "../../src/index.ts";
import { pageWords, stampOf, stampPage } from "./support/stamped.ts";
import { onlyPageFile } from "../checkpoint/support/page-files.ts";

/** Extents of 3 and 1 pages, and 600 pages that are two extents, since they are in two units. */
const EXTENTS = [
  { start: 0, pages: 3 },
  { start: 10, pages: 1 },
  { start: 20, pages: 492 },
  { start: 512, pages: 108 },
];
const ALL_PAGES = EXTENTS.flatMap(({ start, pages }) =>
  Array.from({ length: pages }, (_, i) => start + i),
);

let root: string;
let checkpoint: string;
let meta: Uint8Array;
let pages: Uint8Array;
let hashes: ColumnPlace;
let pagesName: string;

beforeAll(async () => {
  root = mkdtempSync(join(tmpdir(), "pgalloc-integrity-"));
  checkpoint = join(root, "checkpoint");
  using file = MemoryFile.create();
  file.allocate(1024 * PAGE_SIZE);
  for (const page of ALL_PAGES) stampPage(pageWords(file, page), page, 1);
  await file.saveTo(checkpoint, { userData: new Uint8Array(21).fill(3) });
  meta = new Uint8Array(readFileSync(join(checkpoint, "meta")));
  const { manifest, contents } = openCheckpoint(checkpoint);
  hashes = manifest.files[0]!.hashes;
  closeContents(contents);
  pagesName = basename(onlyPageFile(checkpoint));
  pages = new Uint8Array(readFileSync(join(checkpoint, pagesName)));
});
afterAll(() => rmSync(root, { recursive: true }));

/** A copy of the checkpoint with other bytes in one of its files. */
function damaged(name: string, bytes: Uint8Array): string {
  const directory = join(root, "damaged");
  rmSync(directory, { recursive: true, force: true });
  cpSync(checkpoint, directory, { recursive: true });
  writeFileSync(join(directory, name), bytes);
  return directory;
}

function flipped(bytes: Uint8Array, at: number): Uint8Array {
  const copy = bytes.slice();
  copy[at]! ^= 1 << (at % 8);
  return copy;
}

describe("metadata", () => {
  test("notices every changed byte", async () => {
    const step = process.env["CI"] === undefined ? 7 : 3;
    const { offset, count } = hashes;
    for (let at = 0; at < meta.length; at += step) {
      // A load does not read the hashes: a save and verify do.
      if (at >= offset && at < offset + 8 * count) continue;
      await expect(MemoryFile.loadFrom(damaged("meta", flipped(meta, at)))).rejects.toBeInstanceOf(
        CorruptCheckpointError,
      );
    }
  });

  test("notices every changed byte of the hashes, when they are read", () => {
    for (let at = 0; at < 8 * hashes.count; at += 97) {
      const directory = damaged("meta", flipped(meta, hashes.offset + at));
      const { manifest, contents } = openCheckpoint(directory);
      const { fd, path } = contents[0]!;
      expect(() => readHashes(fd, manifest.files[0]!.hashes, path)).toThrow(CorruptCheckpointError);
      closeContents(contents);
    }
  });

  test("refuses a sparse file of gigabytes by its header, without reading it", async () => {
    for (const [start, message] of [
      [new Uint8Array(HEADER_BYTES), "This is not a pgalloc checkpoint"],
      [meta, `Expected ${meta.length} bytes, got ${2 ** 31}`],
    ] as const) {
      const directory = damaged("meta", start);
      truncateSync(join(directory, "meta"), 2 ** 31);
      let mostBytes = 0;
      setFaultHook((call, _, __, lengthBytes) => {
        if (call === "pread") mostBytes = Math.max(mostBytes, lengthBytes);
        return undefined;
      });
      try {
        await expect(MemoryFile.loadFrom(directory)).rejects.toThrow(message);
      } finally {
        setFaultHook(undefined);
      }
      expect(mostBytes).toBe(HEADER_BYTES);
    }
  });

  test("has no unchecked bytes between sections or behind them", async () => {
    const view = new DataView(meta.buffer, meta.byteOffset, meta.byteLength);
    const ends = Array.from({ length: view.getUint32(HeaderField.SectionCount, true) }, (_, i) => {
      const entry = HEADER_BYTES + 32 * i;
      return view.getFloat64(entry + 8, true) + view.getFloat64(entry + 16, true);
    });
    const padding = ends.filter((end) => end % 8 !== 0 && end < meta.length);
    expect(padding.length).toBeGreaterThan(0);
    for (const at of padding) {
      const changed = MemoryFile.loadFrom(damaged("meta", flipped(meta, at)));
      await expect(changed).rejects.toThrow(`Byte ${at} between sections is`);
    }
    const longer = new Uint8Array([...meta, 1]);
    await expect(MemoryFile.loadFrom(damaged("meta", longer))).rejects.toThrow(
      `Expected ${meta.length} bytes`,
    );
  });

  test("is refused if it is cut off at any length", async () => {
    for (let length = 0; length < meta.length; length += 31) {
      await expect(
        MemoryFile.loadFrom(damaged("meta", meta.slice(0, length))),
      ).rejects.toBeInstanceOf(CorruptCheckpointError);
    }
  });

  test("is checked for version and page size before anything else", async () => {
    for (const [offset, message] of [
      [8, "format version"],
      [12, "pages of"],
    ] as const) {
      const bytes = meta.slice();
      bytes.fill(0xff, offset, offset + 4);
      // The rest is meaningless in this version, so the message must not name it.
      bytes.fill(0x55, 16);
      await expect(MemoryFile.loadFrom(damaged("meta", bytes))).rejects.toThrow(message);
    }
  });
});

describe("damage of page contents", () => {
  test.each([0, 2, 3, 4, 300, 603])(
    "in page %d fails only its waiters; all other pages load",
    async (index) => {
      const bad = ALL_PAGES[index]!;
      const extent = EXTENTS.findIndex(
        ({ start, pages: count }) => bad >= start && bad < start + count,
      );
      const directory = damaged(pagesName, flipped(pages, index * PAGE_SIZE + 77));
      for (const queue of ["workers", "inline"] as const) {
        using file = await MemoryFile.loadFrom(directory, { background: true, queue });
        const waits = ALL_PAGES.map((page) =>
          file.awaitLoad(new FileRange(page * PAGE_SIZE, (page + 1) * PAGE_SIZE)),
        );
        const settled = await Promise.allSettled(waits);
        const failed = settled.flatMap((result, i) =>
          result.status === "rejected" ? [ALL_PAGES[i]!] : [],
        );
        expect(failed).toEqual([bad]);
        const error: unknown = (settled[index] as PromiseRejectedResult).reason;
        expect(error).toBeInstanceOf(CorruptCheckpointError);
        expect(error).toMatchObject({
          section: "pages",
          offset: index * PAGE_SIZE,
          path: join(directory, pagesName),
        });
        expect((error as Error).message).toContain(`extent ${extent},`);
        expect((error as Error).message).toContain(`offset ${index * PAGE_SIZE}`);
        // A waiter may be answered a moment before all counts are right.
        while (file.isLoading) await Bun.sleep(1);
        expect(file.loadStats()).toMatchObject({
          failedBytes: PAGE_SIZE,
          loadedBytes: (ALL_PAGES.length - 1) * PAGE_SIZE,
        });
        expect(file.loadStats().error).toEqual(error as Error);
        for (const page of ALL_PAGES.filter((good) => good !== bad))
          expect(stampOf(pageWords(file, page), page)).toBe(1);
        expect(() => pageWords(file, bad)).toThrow(NotLoadedError);
        expect(() => pageWords(file, bad)).toThrow(/could not be loaded: Checksum.*retryLoad/);
        // Once it is repaired on disk, it can be loaded.
        writeFileSync(join(directory, pagesName), pages, { flag: "r+" });
        await file.retryLoad();
        expect(stampOf(pageWords(file, bad), bad)).toBe(1);
        writeFileSync(join(directory, pagesName), flipped(pages, index * PAGE_SIZE + 77), {
          flag: "r+",
        });
      }
    },
  );

  test("in several pages of a unit fails only their own waiters", async () => {
    const bytes = pages.slice();
    for (const index of [10, 20, 21]) bytes[index * PAGE_SIZE]! ^= 1;
    using file = await MemoryFile.loadFrom(damaged(pagesName, bytes), { background: true });
    const block = new FileRange(0, HUGE_PAGE_SIZE);
    await expect(file.awaitLoad(block)).rejects.toBeInstanceOf(CorruptCheckpointError);
    while (file.isLoading) await Bun.sleep(1);
    const failed = ALL_PAGES.filter(
      (page) => !file.isLoaded(new FileRange(page * PAGE_SIZE, (page + 1) * PAGE_SIZE)),
    );
    expect(failed).toEqual([10, 20, 21].map((index) => ALL_PAGES[index]!));
  });

  test("fails a load without waiters as a whole", async () => {
    const directory = damaged(pagesName, flipped(pages, 500 * PAGE_SIZE));
    await expect(MemoryFile.loadFrom(directory)).rejects.toMatchObject({
      code: "ERR_CORRUPT_CHECKPOINT",
      offset: 500 * PAGE_SIZE,
    });
  });
});
