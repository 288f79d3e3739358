/**
 * Mapped restore: pages are private mappings of page files. Every method keeps its meaning, nothing
 * changes the page files, and contents that cannot be mapped are copied.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  closeSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { coreOf } from "../../src/file/memory-file.ts";
import {
  CHUNK_SIZE,
  HUGE_PAGE_SIZE,
  loadAll,
  MemoryFile,
  PAGE_SIZE,
  saveAll,
} from "../../src/index.ts";
import { populateHere } from "../../src/load/populate-task.ts";
import { Actor } from "../threads/support/actor.ts";
import { all, PAGES, pages, saveDense, stamp, wrongPages } from "./support/mapped-image.ts";
import { smapsOf } from "./support/mapped-smaps.ts";

let root: string;
beforeAll(async () => {
  root = mkdtempSync(join(tmpdir(), "pgalloc-mapped-"));
  await saveDense(join(root, "dense"));
});
afterAll(() => rmSync(root, { recursive: true }));

/** The mappings of page files in the file's memory. */
function pageFileMappings(file: MemoryFile): number {
  const { base } = coreOf(file).mapping;
  const lines = readFileSync("/proc/self/maps", "utf8").split("\n");
  return lines.filter((line) => {
    const start = Number.parseInt(line, 16);
    return start >= base && start < base + file.totalSizeBytes && line.includes("/pages-");
  }).length;
}

describe.each([true, false])("verify %p", (verify) => {
  const load = (name = "dense") => MemoryFile.loadFrom(join(root, name), { mapped: true, verify });

  test("contents are those that were saved, and no page was copied", async () => {
    using file = await load();
    expect(file.loadStats()).toMatchObject({
      totalBytes: all.end,
      loadedBytes: all.end,
      mappedBytes: all.end,
      copiedBytes: 0,
      failedBytes: 0,
      hugeBytes: 0,
    });
    expect(pageFileMappings(file)).toBe(1);
    expect(file.totalUsageBytes).toBe(0);
    expect(file.metrics().memory).toMatchObject({ committedBytes: 0, mappedBytes: all.end });
    expect(`${file}`).toContain(", 12.1 MiB of page files");
    expect(wrongPages(file)).toEqual([]);
  });

  test("a write copies its page; the checkpoint and other files stay as they are", async () => {
    using file = await load();
    using other = await load();
    file.view(pages(7)).fill(0xaa);
    expect(wrongPages(file)).toEqual([7]);
    expect(wrongPages(other)).toEqual([]);
    using third = await load();
    expect(wrongPages(third)).toEqual([]);
  });

  test("decommitted pages read as zero, and freed pages are new pages", async () => {
    using file = await load();
    file.decommit(pages(3, 4));
    const zeroed = (page: number) => (page >= 3 && page < 7 ? 0 : stamp(page));
    expect(wrongPages(file, zeroed)).toEqual([]);
    expect(file.view(pages(3, 4)).every((byte) => byte === 0)).toBe(true);
    file.decRef(pages(100, 50));
    await file.released();
    const again = file.allocate(50 * PAGE_SIZE);
    expect(again).toEqual(expect.objectContaining(pages(100, 50)));
    expect(file.view(again).every((byte) => byte === 0)).toBe(true);
    file.view(again).fill(1);
    expect(file.loadStats().mappedBytes).toBe(all.end);
  });

  test("other threads see the pages, write them and give them back", async () => {
    using file = await load();
    const actor = new Actor();
    await actor.call("attach", file.share());
    await actor.call("decommit", pages(11));
    expect(file.view(pages(11)).every((byte) => byte === 0)).toBe(true);
    file.view(pages(12), Uint32Array).fill(3);
    await actor.call("save", join(root, `thread-${verify}`));
    await actor.terminate();
    using back = await MemoryFile.loadFrom(join(root, `thread-${verify}`));
    expect(wrongPages(back, (page) => (page === 11 ? 0 : page === 12 ? 3 : stamp(page)))).toEqual(
      [],
    );
  });

  test("open() restores by mapping", async () => {
    const options = { mapped: true, verify, create: true };
    using file = await MemoryFile.open(join(root, "dense"), options);
    expect(file.loadStats().mappedBytes).toBe(all.end);
    expect(wrongPages(file)).toEqual([]);
  });

  test("the file grows, and is destroyed", async () => {
    const file = await load();
    const large = file.allocate(CHUNK_SIZE);
    file.view({ start: large.end - PAGE_SIZE, end: large.end }).fill(1);
    const view = file.view(pages(0));
    file.destroy();
    expect(view.length).toBe(0);
  });

  test("compressed contents are copied", async () => {
    using source = await load();
    const place = join(root, `zstd-${verify}`);
    await source.saveTo(place, { compression: "zstd" });
    using file = await MemoryFile.loadFrom(place, { mapped: true, verify });
    expect(wrongPages(file)).toEqual([]);
    const { mappedBytes, copiedBytes } = file.loadStats();
    expect(mappedBytes + copiedBytes).toBe(all.end);
    expect(copiedBytes).toBeGreaterThan(mappedBytes);
  });

  test("several files are mapped", async () => {
    const place = join(root, `several-${verify}`);
    using source = await load();
    using second = await load();
    second.view(pages(0), Uint32Array).fill(4);
    await saveAll(place, { a: source, b: second });
    using files = await loadAll(place, { mapped: true, verify });
    expect(wrongPages(files.get("a")!)).toEqual([]);
    expect(wrongPages(files.get("b")!, (page) => (page === 0 ? 4 : stamp(page)))).toEqual([]);
    expect(files.get("b")!.loadStats().copiedBytes).toBe(0);
  });

  test("random writes, decommits, frees and saves give the contents of a copied file", async () => {
    const step = fc.oneof(
      fc.record({
        kind: fc.constant("write" as const),
        page: fc.nat(PAGES - 4),
        count: fc.integer({ min: 1, max: 3 }),
      }),
      fc.record({
        kind: fc.constant("decommit" as const),
        page: fc.nat(PAGES - 40),
        count: fc.integer({ min: 1, max: 40 }),
      }),
      fc.record({
        kind: fc.constant("save" as const),
        page: fc.constant(0),
        count: fc.constant(1),
      }),
    );
    let run = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 3, maxLength: 12 }), async (steps) => {
        const place = join(root, `random-${verify}-${run++}`);
        using file = await load();
        const model = Uint32Array.from({ length: PAGES }, (_, page) => stamp(page));
        for (const [at, { kind, page, count }] of steps.entries()) {
          const range = pages(page, count);
          if (kind === "write") {
            file.view(range, Uint32Array).fill(at + 1);
            model.fill(at + 1, page, page + count);
          } else if (kind === "decommit") {
            file.decommit(range);
            model.fill(0, page, page + count);
          } else await file.saveTo(place);
          expect(wrongPages(file, (each) => model[each]!)).toEqual([]);
        }
        await file.saveTo(place);
        using back = await MemoryFile.loadFrom(place, { mapped: true, verify });
        expect(wrongPages(back, (each) => model[each]!)).toEqual([]);
        rmSync(place, { recursive: true });
      }),
      { numRuns: 8 },
    );
  });
});

test("with verify, a damaged page is never handed out, and the others are", async () => {
  const place = join(root, "damaged");
  using source = await MemoryFile.loadFrom(join(root, "dense"));
  await source.saveTo(place);
  const name = readdirSync(place).find((entry) => entry.startsWith("pages-"))!;
  const fd = openSync(join(place, name), "r+");
  writeSync(fd, Buffer.from("damage"), 0, 6, 70 * PAGE_SIZE + 9);
  closeSync(fd);
  using file = await MemoryFile.loadFrom(place, { mapped: true, background: true });
  await expect(file.awaitLoad()).rejects.toMatchObject({ code: "ERR_CORRUPT_CHECKPOINT" });
  while (file.isLoading) await Bun.sleep(1);
  expect(() => file.view(pages(70))).toThrow("could not be loaded: Checksum does not match");
  expect(file.view(pages(71), Uint32Array)[0]).toBe(stamp(71));
  expect(file.loadStats()).toMatchObject({
    failedBytes: PAGE_SIZE,
    mappedBytes: all.end - PAGE_SIZE,
  });
});

test("before its check a page is not handed out; an awaited one comes first", async () => {
  using file = await MemoryFile.loadFrom(join(root, "dense"), {
    mapped: true,
    background: true,
    queue: "workers",
  });
  // Threads take longer to start.
  expect(() => file.view(pages(PAGES - 1))).toThrow("not loaded");
  file.awaitLoadSync(pages(PAGES - 1));
  expect(file.view(pages(PAGES - 1), Uint32Array)[0]).toBe(stamp(PAGES - 1));
  await file.awaitLoad();
});

test.each([
  { large: 400, areMapped: true },
  { large: 100, areMapped: false },
])("of many pieces the smallest are copied: $large of 15 pages", async ({ large, areMapped }) => {
  const place = join(root, `fragmented-${large}`);
  using dense = await MemoryFile.loadFrom(join(root, "dense"), { mapped: true });
  // At first a file maps a quarter of its budget. There is one piece more of one page alone.
  const small = Math.floor(coreOf(dense).mapping.overlay!.piecesMax / 4) + 1;
  const largeCount = Math.ceil((small * large) / 4096);
  const pieces = Array.from({ length: small + largeCount }, (_, i) => (i < largeCount ? 15 : 1));
  const ranges: { start: number; end: number }[] = [];
  {
    using source = MemoryFile.create();
    let { start } = source.allocate((2 * small + 16 * largeCount) * PAGE_SIZE);
    for (const [piece, length] of pieces.entries()) {
      ranges.push({ start, end: start + length * PAGE_SIZE });
      source.view(ranges[piece]!, Uint32Array).fill(piece + 1);
      start += (length + 1) * PAGE_SIZE;
    }
    await source.saveTo(place);
  }
  using file = await MemoryFile.loadFrom(place, { mapped: true });
  // Small pieces are mapped only if half of the contents are mapped then.
  const mapped = areMapped ? 15 * largeCount : 0;
  expect(file.loadStats()).toMatchObject({
    mappedBytes: mapped * PAGE_SIZE,
    copiedBytes: (small + 15 * largeCount - mapped) * PAGE_SIZE,
  });
  const wrong = ranges.filter((range, i) => file.view(range, Uint32Array).some((x) => x !== i + 1));
  expect(wrong).toEqual([]);
});

test("giving back stays within the budget of mappings", async () => {
  using dense = await MemoryFile.loadFrom(join(root, "dense"), { mapped: true });
  const { overlay } = coreOf(dense).mapping;
  for (let page = 0; page < PAGES; page += 2) dense.decommit(pages(page));
  expect(wrongPages(dense, (page) => (page % 2 === 0 ? 0 : stamp(page)))).toEqual([]);
  expect(overlay!.zeroedPages).toBe(0);
  expect(pageFileMappings(dense)).toBeLessThanOrEqual(overlay!.piecesMax);
});

test("files of one restore share the budget of mappings", async () => {
  const place = join(root, "budget");
  const unit = HUGE_PAGE_SIZE / PAGE_SIZE;
  {
    // Each second unit has contents, so each is a piece.
    using source = MemoryFile.create();
    const { start } = source.allocate(2 * 64 * HUGE_PAGE_SIZE);
    for (let piece = 0; piece < 64; piece++) {
      const first = start + 2 * piece * HUGE_PAGE_SIZE;
      source.view({ start: first, end: first + HUGE_PAGE_SIZE }).fill(1);
    }
    const empty = Array.from(
      { length: 300 },
      (_, i) => [`empty ${i}`, MemoryFile.create()] as const,
    );
    await saveAll(place, { source, ...Object.fromEntries(empty) });
    for (const [, file] of empty) file.destroy();
  }
  using files = await loadAll(place, { mapped: true });
  const file = files.get("source")!;
  const { piecesMax } = coreOf(file).mapping.overlay!;
  expect(piecesMax).toBeLessThan(4 * 64);
  expect(pageFileMappings(file)).toBe(Math.floor(piecesMax / 4));
  expect(file.loadStats().mappedBytes).toBe(Math.floor(piecesMax / 4) * unit * PAGE_SIZE);
  for (let piece = 0; piece < 64; piece++) {
    const start = 2 * piece * HUGE_PAGE_SIZE;
    expect(file.view({ start, end: start + PAGE_SIZE })[0]).toBe(1);
  }
});

test("mapped with a path, or no boolean, is a TypeError", async () => {
  for (const options of [
    { mapped: 1 },
    { mapped: true, verify: "no" },
    { mapped: true, path: "x" },
  ])
    await expect(MemoryFile.loadFrom(join(root, "dense"), options as never)).rejects.toThrow(
      TypeError,
    );
});

test("usage tells clean mapped pages, private copies and other memory apart", async () => {
  using file = await MemoryFile.loadFrom(join(root, "dense"), { mapped: true });
  file.view(all)[0];
  expect(file.usage()).toMatchObject({ totalBytes: 0, ...smapsOf(file) });
  for (let page = 0; page < 50; page++) file.view(pages(3 * page)).fill(1);
  file.decommit(pages(600, 4));
  file.view(pages(600, 2)).fill(2);
  file.updateUsage();
  const usage = file.usage();
  expect(usage).toMatchObject({ totalBytes: 2 * PAGE_SIZE, ...smapsOf(file) });
  expect(usage.privateBytes).toBe(50 * PAGE_SIZE);
  // The kernel unmaps a huge page of the page cache as a whole when a part of it is written.
  expect(usage.cleanMappedBytes).toBeLessThanOrEqual(all.end - 54 * PAGE_SIZE);
  expect(usage.cleanMappedBytes).toBeGreaterThan(0);
});

test("populateHere brings cached pages in, and leaves many pages to a thread", async () => {
  using file = await MemoryFile.loadFrom(join(root, "dense"), { mapped: true, verify: false });
  const { overlay } = coreOf(file).mapping;
  const unitPages = HUGE_PAGE_SIZE / PAGE_SIZE;
  expect(populateHere(overlay!, { start: 0, end: unitPages + 1 })).toBe(false);
  expect(file.usage().cleanMappedBytes).toBe(0);
  expect(populateHere(overlay!, { start: 0, end: unitPages })).toBe(true);
  expect(file.usage().cleanMappedBytes).toBeGreaterThanOrEqual(HUGE_PAGE_SIZE);
});

test("without verify, awaitLoad brings a range in, and destroy ends the wait", async () => {
  const options = { mapped: true, verify: false };
  using file = await MemoryFile.loadFrom(join(root, "dense"), options);
  expect(file.usage().cleanMappedBytes).toBe(0);
  await file.awaitLoad(pages(100, 700));
  expect(file.usage().cleanMappedBytes).toBeGreaterThanOrEqual(700 * PAGE_SIZE);
  // Pages that were returned stay without memory.
  file.decommit(pages(0, 10));
  await file.awaitLoad(pages(0, 20));
  expect(file.totalUsageBytes).toBe(0);
  const wait = file.awaitLoad(all);
  file.destroy();
  expect(await wait.catch((error: unknown) => error)).toMatchObject({ code: "ERR_DESTROYED" });
});
