/**
 * Saves of a mapped file: they read only written pages, and leave every other file that maps the
 * same page files unchanged.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MemoryFile, PAGE_SIZE } from "../../src/index.ts";
import { all, PAGES, pages, saveDense, stamp, wrongPages } from "./support/mapped-image.ts";

/** A program that writes to every page of a mapped checkpoint and saves over it. */
const SAVER = join(import.meta.dir, "support/mapped-saver.ts");

let root: string;
beforeAll(async () => {
  root = mkdtempSync(join(tmpdir(), "pgalloc-mapped-saves-"));
  await saveDense(join(root, "dense"));
});
afterAll(() => rmSync(root, { recursive: true }));

describe.each([true, false])("verify %p", (verify) => {
  const load = () => MemoryFile.loadFrom(join(root, "dense"), { mapped: true, verify });

  test("a save stores mapped, written, decommitted and new pages", async () => {
    for (const incremental of [true, false]) {
      using file = await load();
      file.view(pages(9), Uint32Array).fill(5);
      file.decommit(pages(20, 3));
      const more = file.allocate(3 * PAGE_SIZE);
      file.view(more, Uint32Array).fill(8);
      const place = join(root, `saved-${verify}-${incremental}`);
      await file.saveTo(place, { incremental });
      using back = await MemoryFile.loadFrom(place);
      const expected = (page: number) =>
        page === 9 ? 5 : page >= 20 && page < 23 ? 0 : stamp(page);
      expect(wrongPages(back, expected)).toEqual([]);
      expect(back.view(more, Uint32Array).every((word) => word === 8)).toBe(true);
    }
  });

  test("a save over the mapped checkpoint leaves every file with its own contents", async () => {
    const place = join(root, `over-${verify}`);
    using source = await load();
    await source.saveTo(place);
    using mapped = await MemoryFile.loadFrom(place, { mapped: true, verify });
    using reader = await MemoryFile.loadFrom(place, { mapped: true, verify });
    for (let round = 1; round <= 3; round++) {
      mapped.view(pages(round), Uint32Array).fill(round);
      await mapped.saveTo(place);
      expect(wrongPages(reader)).toEqual([]);
      using back = await MemoryFile.loadFrom(place, { mapped: true, verify });
      const written = (page: number) => (page >= 1 && page <= round ? page : stamp(page));
      expect(wrongPages(back, written)).toEqual([]);
      expect(wrongPages(mapped, written)).toEqual([]);
    }
  });

  test("a save looks only at written pages, also after saves and in another file", async () => {
    const place = join(root, `looks-${verify}`);
    using source = await load();
    await source.saveTo(place);
    using file = await MemoryFile.loadFrom(place, { mapped: true, verify });
    const lookedAt = async (where: string) => {
      const { rounds, detection, writtenBytes } = await file.saveTo(where);
      expect(detection).toBe("pagemap");
      return [rounds[0]!.pages, writtenBytes / PAGE_SIZE];
    };
    // A page of the page cache is read as a whole, and is clean all the same.
    expect(wrongPages(file)).toEqual([]);
    expect(await lookedAt(place)).toEqual([0, 0]);
    file.view(pages(40, 2), Uint32Array).fill(1);
    expect(await lookedAt(place)).toEqual([2, 2]);
    file.view(pages(900), Uint32Array).fill(2);
    expect(await lookedAt(place)).toEqual([3, 1]);
    file.decommit(pages(900));
    expect(await lookedAt(place)).toEqual([3, 0]);
    // Another checkpoint is not a base until the file was saved there.
    expect(await lookedAt(join(root, `looks-too-${verify}`))).toEqual([PAGES, PAGES - 1]);
    expect((await lookedAt(place))[0]).toBe(PAGES);
    using back = await MemoryFile.loadFrom(place, { mapped: true, verify });
    const written = (page: number) =>
      page === 900 ? 0 : page === 40 || page === 41 ? 1 : stamp(page);
    expect(wrongPages(back, written)).toEqual([]);
  });

  test("refresh() maps the newer checkpoint, and copies nothing", async () => {
    const place = join(root, `refreshed-${verify}`);
    using writer = await load();
    await writer.saveTo(place);
    using reader = await MemoryFile.loadFrom(place, { mapped: true, verify });
    for (let round = 1; round <= 2; round++) {
      writer.view(pages(8 * round, 3), Uint32Array).fill(round);
      await writer.saveTo(place);
      expect(await reader.refresh()).toBe(true);
      await reader.awaitLoad();
      const written = (page: number) =>
        page >= 8 && page < 11 ? 1 : page >= 16 && page < 19 && round === 2 ? 2 : stamp(page);
      expect(wrongPages(reader, written)).toEqual([]);
      expect(reader.loadStats()).toMatchObject({ mappedBytes: all.end, copiedBytes: 0 });
      expect(reader.usage()).toMatchObject({ totalBytes: 0, privateBytes: 0 });
    }
    // Its base is the checkpoint that it maps now.
    reader.view(pages(100), Uint32Array).fill(7);
    const { rounds } = await reader.saveTo(place);
    expect(rounds[0]!.pages).toBe(1);
  });

  test("a save by another process leaves the file as it is", async () => {
    const place = join(root, `process-${verify}`);
    using source = await load();
    await source.saveTo(place);
    using file = await MemoryFile.loadFrom(place, { mapped: true, verify });
    file.view(pages(5), Uint32Array).fill(9);
    const child = Bun.spawnSync([process.execPath, SAVER, place], { stderr: "inherit" });
    expect(child.exitCode).toBe(0);
    const own = (page: number) => (page === 5 ? 9 : stamp(page));
    expect(wrongPages(file, own)).toEqual([]);
    await file.saveTo(place);
    using back = await MemoryFile.loadFrom(place, { mapped: true, verify });
    expect(wrongPages(back, own)).toEqual([]);
  });
});
