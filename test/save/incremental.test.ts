/**
 * A save writes only what the checkpoint at its destination does not have, and garbage stays
 * bounded.
 */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { closeSync, mkdtempSync, openSync, rmSync, statSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { resetTrackingProbe, setFaultHook } from "../../ffi/index.ts";
import { closeContents, openCheckpoint } from "../../src/checkpoint/directory.ts";
import { MemoryFile, PAGE_SIZE, type SaveOptions, saveAll, loadAll } from "../../src/index.ts";
import { MAX_PAGE_FILES, planMoves, type PageFileUse } from "../../src/save/compaction.ts";
import { contentsOf, numberedFile } from "../checkpoint/support/contents.ts";
import { hasLz4 } from "../support/codecs.ts";
import { pageFiles } from "../checkpoint/support/page-files.ts";

const MIB = 2 ** 20;
/** More than what is copied at once, so that writes are tracked. */
const BYTES = 24 * MIB;
const PAGES = BYTES / PAGE_SIZE;

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "pgalloc-incremental-"));
});
afterEach(() => {
  setFaultHook(undefined);
  resetTrackingProbe();
  rmSync(directory, { recursive: true });
});

const words = (file: MemoryFile) => file.view({ start: 0, end: BYTES }, Uint32Array);

async function expectSaved(file: MemoryFile): Promise<void> {
  using back = await MemoryFile.loadFrom(directory);
  expect(contentsOf(back)).toEqual(contentsOf(file));
}

describe.each(["userfaultfd", "hashes"])("%s", (detection) => {
  beforeEach(() => {
    const reason = "refused by a test";
    if (detection === "hashes")
      resetTrackingProbe({ syscall: "userfaultfd", code: "EPERM", reason });
  });

  test("saveTo writes the pages that changed since the base, also after a restart", async () => {
    using file = numberedFile(PAGES, 1);
    const first = await file.saveTo(directory);
    expect(first).toMatchObject({ pagesBytes: BYTES, writtenBytes: BYTES, reusedBytes: 0 });
    const again = await file.saveTo(directory);
    expect(again).toMatchObject({ pagesBytes: BYTES, writtenBytes: 0, pageFiles: 1 });
    for (const page of [3, 700, 701, 5000]) words(file)[(page * PAGE_SIZE) / 4 + 9] = 1;
    const changed = await file.saveTo(directory);
    expect(changed).toMatchObject({ writtenBytes: 4 * PAGE_SIZE, pageFiles: 2 });
    await expectSaved(file);
    // After a restart nothing is known of what was written: hashes say what changed.
    using back = await MemoryFile.loadFrom(directory);
    words(back)[9] = 77;
    const restarted = await back.saveTo(directory);
    expect(restarted).toMatchObject({ writtenBytes: PAGE_SIZE, pageFiles: 3 });
    await expectSaved(back);
  });

  test("saveTo leaves a checkpoint that shows the instant already", async () => {
    using file = numberedFile(PAGES, 1);
    const userData = new Uint8Array([1]);
    const first = await file.saveTo(directory, { userData });
    expect(first.isUnchanged).toBe(false);
    const { ino } = statSync(join(directory, "meta"));
    words(file)[9] = words(file)[9]!;
    const again = await file.saveTo(directory, { userData });
    expect(again).toMatchObject({ isUnchanged: true, id: first.id, pagesBytes: BYTES });
    expect(statSync(join(directory, "meta")).ino).toBe(ino);
    const isChangedBy = async (change: () => void, data = userData) => {
      change();
      const { ino } = statSync(join(directory, "meta"));
      expect(await file.saveTo(directory, { userData: data })).toMatchObject({
        isUnchanged: false,
      });
      expect(statSync(join(directory, "meta")).ino).not.toBe(ino);
      await expectSaved(file);
    };
    await isChangedBy(() => {}, new Uint8Array([2]));
    await isChangedBy(() => file.incRef({ start: 0, end: PAGE_SIZE }));
    await isChangedBy(() => file.decommit({ start: 0, end: PAGE_SIZE }));
    await isChangedBy(() => file.decRef({ start: PAGE_SIZE, end: 2 * PAGE_SIZE }));
    await isChangedBy(() => void file.allocate(PAGE_SIZE, { kind: 3 }));
    await isChangedBy(() => words(file).set([77_777], 4096));
    // After a restart, hashes say that nothing has changed.
    using back = await MemoryFile.loadFrom(directory);
    expect(await back.saveTo(directory, { userData })).toMatchObject({ isUnchanged: true });
    expect(await back.saveTo(directory, { userData, incremental: false })).toMatchObject({
      isUnchanged: false,
    });
  });

  test("saveTo writes all pages to another place, and with incremental: false", async () => {
    using file = numberedFile(PAGES, 1);
    await file.saveTo(directory);
    const elsewhere = join(directory, "elsewhere");
    expect(await file.saveTo(elsewhere)).toMatchObject({ writtenBytes: BYTES });
    const full = await file.saveTo(directory, { incremental: false });
    expect(full).toMatchObject({ writtenBytes: BYTES, pageFiles: 1 });
    // The base is not the one that the tracker knows.
    words(file)[9] = 5;
    expect(await file.saveTo(elsewhere)).toMatchObject({ writtenBytes: PAGE_SIZE });
    expect(await file.saveTo(directory)).toMatchObject({ writtenBytes: PAGE_SIZE });
    await expectSaved(file);
  });

  test("saveTo that fails loses no change", async () => {
    using file = numberedFile(PAGES, 1);
    await file.saveTo(directory);
    words(file)[9] = 5;
    setFaultHook((call) => (call === "renameat" ? { errno: 5 } : undefined));
    await expect(file.saveTo(directory)).rejects.toMatchObject({ code: "EIO" });
    setFaultHook(undefined);
    words(file)[1024 + 9] = 6;
    expect(await file.saveTo(directory)).toMatchObject({ writtenBytes: 2 * PAGE_SIZE });
    await expectSaved(file);
  });
});

test("saveTo leaves out pages that were freed, decommitted or zeroed", async () => {
  using file = numberedFile(PAGES, 1);
  await file.saveTo(directory);
  const range = (page: number, count = 1) => ({
    start: page * PAGE_SIZE,
    end: (page + count) * PAGE_SIZE,
  });
  file.decommit(range(10, 5));
  file.view(range(20)).fill(0);
  file.decRef(range(600, 600));
  const report = await file.saveTo(directory);
  expect(report).toMatchObject({ writtenBytes: 0, pagesBytes: BYTES - 606 * PAGE_SIZE });
  await expectSaved(file);
  // Given out anew, they are zeros and not what the base had there.
  const anew = file.allocate(600 * PAGE_SIZE);
  expect(anew.start).toBe(600 * PAGE_SIZE);
  await file.saveTo(directory);
  await expectSaved(file);
});

test("saveAll reuses the contents of each file by its id", async () => {
  const files = { a: numberedFile(700, 1), b: numberedFile(900, 50_000) };
  await saveAll(directory, files);
  files.b.view({ start: 0, end: PAGE_SIZE })[99] = 1;
  const report = await saveAll(directory, files);
  expect(report).toMatchObject({ writtenBytes: PAGE_SIZE, reusedBytes: 1599 * PAGE_SIZE });
  using back = await loadAll(directory);
  for (const [id, file] of Object.entries(files)) {
    expect(contentsOf(back.get(id)!)).toEqual(contentsOf(file));
    file.destroy();
  }
});

test("saveTo does not use a base that has the file under another name", async () => {
  using file = numberedFile(PAGES, 1);
  using other = numberedFile(PAGES, 50_000);
  await saveAll(directory, { a: file, b: other });
  await saveAll(directory, { a: other, b: file });
  using swapped = await loadAll(directory);
  expect(contentsOf(swapped.get("a")!)).toEqual(contentsOf(other));
  expect(contentsOf(swapped.get("b")!)).toEqual(contentsOf(file));
  expect(await file.saveTo(directory)).toMatchObject({ pagesBytes: BYTES, writtenBytes: BYTES });
  await expectSaved(file);
});

test("saveTo writes all pages if the base's hashes are damaged", async () => {
  using file = numberedFile(PAGES, 1);
  await file.saveTo(directory);
  const { manifest, contents } = openCheckpoint(directory);
  const { offset } = manifest.files[0]!.hashes;
  closeContents(contents);
  const fd = openSync(join(directory, "meta"), "r+");
  writeSync(fd, new Uint8Array([1, 2, 3]), 0, 3, offset);
  closeSync(fd);
  expect(await file.saveTo(directory)).toMatchObject({ writtenBytes: BYTES, pageFiles: 1 });
  await expectSaved(file);
});

/** Stored and live bytes of the checkpoint's page files. */
function usage(): { storedBytes: number; liveBytes: number; files: number } {
  const { manifest, contents } = openCheckpoint(directory);
  closeContents(contents);
  let liveBytes = 0;
  for (const { pageMap } of manifest.files) {
    const { extents, frames } = pageMap;
    extents.frame.forEach((row, i) => {
      const padded = Math.ceil(frames.storedBytes[row]! / PAGE_SIZE) * PAGE_SIZE;
      liveBytes += (padded * extents.length[i]!) / frames.pages[row]!;
    });
  }
  const storedBytes = manifest.pageFiles.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  return { storedBytes, liveBytes, files: manifest.pageFiles.length };
}

test("saveTo saves the memory of random programs, and bounds garbage", async () => {
  const change = fc.record({
    page: fc.nat({ max: PAGES - 1 }),
    count: fc.oneof(fc.integer({ min: 1, max: 4 }), fc.integer({ min: 1, max: 2000 })),
    kind: fc.constantFrom("write", "write", "write", "decommit", "zero"),
  });
  const step = fc.record({
    changes: fc.array(change, { maxLength: 12 }),
    options: fc.record({
      compression: fc.constantFrom("none", "zstd", ...(hasLz4 ? ["lz4"] : [])),
      consistent: fc.boolean(),
    }) as fc.Arbitrary<SaveOptions>,
    restarts: fc.boolean(),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 12, maxLength: 14 }), async (steps) => {
      rmSync(directory, { recursive: true, force: true });
      let file = numberedFile(PAGES, 1);
      let value = 0;
      for (const { changes, options, restarts } of steps) {
        for (const { page, count, kind } of changes) {
          const end = Math.min(PAGES, page + count);
          const range = { start: page * PAGE_SIZE, end: end * PAGE_SIZE };
          if (kind === "decommit") file.decommit(range);
          else if (kind === "zero") file.view(range).fill(0);
          else for (let i = page; i < end; i++) words(file)[(i * PAGE_SIZE) / 4 + 3] = ++value;
        }
        const report = await file.saveTo(directory, options);
        expect(report.pageFiles).toBe(pageFiles(directory).length);
        expect(report.pageFiles).toBeLessThanOrEqual(MAX_PAGE_FILES);
        await expectSaved(file);
        if (!restarts) continue;
        file.destroy();
        file = await MemoryFile.loadFrom(directory);
      }
      // Little is stored, and so a save may move all that must be moved.
      const { storedBytes, liveBytes } = usage();
      expect(storedBytes).toBeLessThanOrEqual(2 * liveBytes + MIB);
      file.destroy();
    }),
    { numRuns: 5 },
  );
}, 120_000);

test("compact writes all pages to one page file", async () => {
  using file = numberedFile(PAGES, 1);
  for (let save = 0; save < 5; save++) {
    words(file)[save * 1024 + 9] = save;
    await file.saveTo(directory);
  }
  expect(pageFiles(directory).length).toBeGreaterThan(3);
  const report = await file.compact();
  expect(report).toMatchObject({ pageFiles: 1, writtenBytes: BYTES, directory });
  await expectSaved(file);
  expect(statSync(join(directory, pageFiles(directory)[0]!)).size).toBe(BYTES + PAGE_SIZE);
});

/** One save of 8 bytes over page files of these sizes. */
function saveOver(uses: readonly PageFileUse[], budgetBytes: number): PageFileUse[] {
  const after = [...uses, { sizeBytes: 8, liveBytes: 8 }];
  const last = after.length - 1;
  const moves = planMoves(after, budgetBytes);
  expect(moves.has(last)).toBe(false);
  const moved = [...moves.values()].reduce((sum, bytes) => sum + bytes, 0);
  if (after.length <= MAX_PAGE_FILES) expect(moved).toBeLessThanOrEqual(budgetBytes);
  for (const [index, bytes] of moves) {
    const { sizeBytes, liveBytes } = after[index]!;
    expect(bytes).toBeLessThanOrEqual(liveBytes);
    after[index] = { sizeBytes, liveBytes: liveBytes - bytes };
  }
  after[last] = { sizeBytes: 8 + moved, liveBytes: 8 + moved };
  return after.filter(({ liveBytes }) => liveBytes > 0);
}

test("planMoves keeps page files few, and garbage below half of the stored bytes", () => {
  const size = fc.tuple(fc.integer({ min: 1, max: 400 }), fc.integer({ min: 1, max: 400 }));
  fc.assert(
    fc.property(fc.array(size, { maxLength: 30 }), (sizes) => {
      let uses = sizes.map(([a, b]) => ({ sizeBytes: Math.max(a, b), liveBytes: Math.min(a, b) }));
      for (let save = 0; save < 200; save++) {
        uses = saveOver(uses, 128);
        expect(uses.length).toBeLessThanOrEqual(MAX_PAGE_FILES);
      }
      const stored = uses.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
      const live = uses.reduce((sum, { liveBytes }) => sum + liveBytes, 0);
      expect(stored - live).toBeLessThanOrEqual(stored / 2);
    }),
  );
});

test("planMoves moves a few times what changed, however many saves follow", () => {
  // In MiB: 2 GiB, of which each save changes 1 %.
  const liveBytes = 2048;
  const changedBytes = 20;
  let uses = [{ sizeBytes: liveBytes, liveBytes }];
  let moved = 0;
  let beyond = 0;
  const saves = 1000;
  for (let save = 0; save < saves; save++) {
    const kept = 1 - changedBytes / liveBytes;
    uses = uses.map((use) => ({ ...use, liveBytes: kept * use.liveBytes }));
    uses.push({ sizeBytes: changedBytes, liveBytes: changedBytes });
    const last = uses.at(-1)!;
    let bytes = 0;
    for (const [index, count] of planMoves(uses, 64)) {
      uses[index] = { ...uses[index]!, liveBytes: uses[index]!.liveBytes - count };
      bytes += count;
    }
    uses[uses.length - 1] = {
      sizeBytes: last.sizeBytes + bytes,
      liveBytes: last.liveBytes + bytes,
    };
    uses = uses.filter((use) => use.liveBytes > 1e-6);
    expect(uses.length).toBeLessThanOrEqual(MAX_PAGE_FILES);
    moved += bytes;
    if (bytes > 64) beyond++;
  }
  // The smallest file alone, each time: 11 times, and beyond the budget in 97 % of the saves.
  expect(moved / saves / changedBytes).toBeLessThan(4);
  expect(beyond / saves).toBeLessThan(0.2);
});
