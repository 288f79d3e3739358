/** Several MemoryFiles in one checkpoint: found by id, loaded in order, destroyed independently. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { closeContents, openCheckpoint } from "../../src/checkpoint/directory.ts";
import { readCrcs, readHashes } from "../../src/checkpoint/columns.ts";
import { decodeManifest } from "../../src/checkpoint/decode.ts";
import { encodeManifest } from "../../src/checkpoint/encode.ts";
import type { Manifest, SavedFile } from "../../src/checkpoint/format.ts";
import {
  CheckpointBusyError,
  type CheckpointFiles,
  CorruptCheckpointError,
  DestroyedError,
  type LoadAllProgress,
  loadAll,
  HUGE_PAGE_SIZE,
  MemoryFile,
  OutOfMemoryError,
  PAGE_SIZE,
  SeveralFilesError,
  saveAll,
} from "../../src/index.ts";
import { expectDescriptors, namedDescriptors } from "../safety/support/descriptors.ts";
import { RandomFileBuilder } from "../support/random-file.ts";
import { checkNumbered, contentsOf, numberedFile } from "../checkpoint/support/contents.ts";
import { listing, pageFiles } from "../checkpoint/support/page-files.ts";

let directory: string;
let before: string[];
const opened: MemoryFile[] = [];

beforeEach(() => {
  before = namedDescriptors();
  directory = mkdtempSync(join(tmpdir(), "pgalloc-save-all-"));
});
afterEach(async () => {
  for (const file of opened.splice(0)) file.destroy();
  rmSync(directory, { recursive: true });
  await expectDescriptors(before);
});

function numbered(count: number, seed: number): MemoryFile {
  const file = numberedFile(count, seed);
  opened.push(file);
  return file;
}

async function load(...options: Parameters<typeof loadAll>): Promise<CheckpointFiles> {
  const files = await loadAll(...options);
  opened.push(...files.values());
  return files;
}

test("loadAll returns random files by id, in order, with their user data", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.uniqueArray(
        fc
          .string({ minLength: 1, maxLength: 8, unit: "grapheme" })
          .filter((id) => !id.includes("\0")),
        {
          minLength: 1,
          maxLength: 4,
        },
      ),
      fc.integer(),
      fc.option(fc.uint8Array({ maxLength: 100 })),
      fc.boolean(),
      async (ids, seed, userData, background) => {
        const made = await Promise.all(
          ids.map((_, i) =>
            new RandomFileBuilder(seed + i, (["small", "huge", "empty"] as const)[i % 3]!).build(),
          ),
        );
        opened.push(...made.map(({ file }) => file));
        const files = new Map(ids.map((id, i) => [id, made[i]!.file]));
        const fileUserData = new Map(
          ids.slice(1).map((id, i) => [id, new Uint8Array([i, seed & 255])]),
        );
        const report = await saveAll(directory, files, {
          userData: userData ?? undefined,
          fileUserData,
        });
        using back = await loadAll(directory, { background });
        expect([...back.keys()]).toEqual(ids);
        expect(back.userData).toEqual(userData);
        for (const [id, file] of back) {
          await file.awaitLoad();
          expect(contentsOf(file)).toEqual(contentsOf(files.get(id)!));
          expect(file.userData).toEqual(fileUserData.get(id) ?? null);
          expect(file.name).toBe(id);
        }
        // Each page file has a page of its own. If no page has contents, there is no page file.
        const sizes = pageFiles(directory).map((name) => statSync(join(directory, name)).size);
        expect(sizes).toEqual(report.pagesBytes === 0 ? [] : [report.pagesBytes + PAGE_SIZE]);
        expect(report.usedBytes).toBe(made.reduce((sum, { file }) => sum + file.allocatedBytes, 0));
        for (const { file } of made) file.destroy();
      },
    ),
    { numRuns: 12, examples: [[[" "], 2093168801, null, false]] },
  );
});

test("saveAll and loadAll of one file read and write what saveTo and loadFrom do", async () => {
  const file = numbered(10, 1);
  const userData = new Uint8Array([1, 2, 3]);
  await file.saveTo(directory, { userData });
  const back = await load(directory);
  expect([...back.keys()]).toEqual(["main"]);
  expect(back.get("main")!.userData).toEqual(userData);
  expect(back.userData).toBeNull();
  checkNumbered(back.get("main")!, 1, 0, 10);

  await saveAll(
    directory,
    { cache: file },
    { userData, fileUserData: { cache: userData.slice(1) } },
  );
  using only = await MemoryFile.loadFrom(directory);
  expect(only.userData).toEqual(userData.slice(1));
  checkNumbered(only, 1, 0, 10);
});

test("loadFrom refuses several files, names their ids, and leaves nothing open", async () => {
  await saveAll(directory, { first: numbered(3, 1), second: numbered(3, 5) });
  const held = namedDescriptors();
  const failure = await MemoryFile.loadFrom(directory).catch((error) => error);
  expect(failure).toBeInstanceOf(SeveralFilesError);
  expect(failure).toMatchObject({
    code: "ERR_SEVERAL_FILES",
    ids: ["first", "second"],
    path: directory,
  });
  expect(failure.message).toContain('2 files: "first", "second"; load it with loadAll()');
  expect(namedDescriptors()).toEqual(held);
});

for (const queue of ["workers", "inline"] as const) {
  test(`loadAll loads file by file, awaited pages first (${queue})`, async () => {
    const pages = 12_000;
    const seeds = [0, 20_000, 40_000];
    await saveAll(directory, new Map(seeds.map((seed) => [`${seed}`, numbered(pages, seed)])));
    const files = [...(await load(directory, { background: true, queue })).values()];
    const last = files[2]!;
    const range = { start: 5000 * PAGE_SIZE, end: 5010 * PAGE_SIZE };
    await last.awaitLoad(range);
    checkNumbered(last, 40_000, 5000, 5010);
    for (let more = true; more; await Bun.sleep(1)) {
      // Later files first: when a background pass reads one, only units that other threads have
      // begun are left of the file before.
      const stats = files.toReversed().map((file) => file.loadStats());
      stats.forEach(({ loadedBytes, demandBytes }, i) => {
        const before = stats[i + 1];
        if (loadedBytes <= demandBytes || before === undefined) return;
        expect(before.totalBytes - before.loadedBytes).toBeLessThanOrEqual(4 * HUGE_PAGE_SIZE);
      });
      more = stats.some(({ isLoading }) => isLoading);
    }
    for (const [i, seed] of seeds.entries()) checkNumbered(files[i]!, seed, 0, pages);
    expect(last.loadStats().demandBytes).toBeGreaterThanOrEqual(10 * PAGE_SIZE);
  });
}

test("destroy of one file of loadAll does not disturb the others", async () => {
  const pages = 8000;
  const seeds = [0, 10_000, 20_000, 30_000];
  await saveAll(directory, new Map(seeds.map((seed) => [`${seed}`, numbered(pages, seed)])));
  for (const destroyed of [0, 1, 3]) {
    const files = [...(await load(directory, { background: true })).values()];
    const waiter = files[destroyed]!.awaitLoad().then(
      () => undefined,
      (error) => error,
    );
    files[destroyed]!.destroy();
    const failure = await waiter;
    if (failure !== undefined) expect(failure).toBeInstanceOf(DestroyedError);
    await Promise.all(files.filter((_, i) => i !== destroyed).map((file) => file.awaitLoad()));
    seeds.forEach((seed, i) => {
      if (i !== destroyed) checkNumbered(files[i]!, seed, 0, pages);
    });
    for (const file of files) file.destroy();
  }
});

test("loadAll closes the page file when all is loaded", async () => {
  await saveAll(directory, { a: numbered(100, 1), b: numbered(100, 1000), zero: numbered(1, 0) });
  const files = await load(directory);
  await expectNoPages();
  files.get("a")!.destroy();
  checkNumbered(files.get("b")!, 1000, 0, 100);
  files[Symbol.dispose]();
});

async function expectNoPages(): Promise<void> {
  const open = () => namedDescriptors().filter((path) => /\/pages-[0-9a-f]+$/.test(path));
  for (let i = 0; i < 400 && open().length > 0; i++) await Bun.sleep(5);
  expect(open()).toEqual([]);
}

test("loadAll ends by its signal, and if onProgress throws", async () => {
  await saveAll(directory, { a: numbered(6000, 1), b: numbered(6000, 1000) });
  const progress: LoadAllProgress[] = [];
  const files = await load(directory, { onProgress: (at) => void progress.push(at) });
  const bytes = 12_000 * PAGE_SIZE;
  expect(progress.at(-1)).toEqual({
    isLoading: false,
    totalBytes: bytes,
    loadedBytes: bytes,
    failedBytes: 0,
  });
  expect(progress.filter(({ isLoading }) => !isLoading).length).toBe(1);
  checkNumbered(files.get("b")!, 1000, 0, 6000);

  const controller = new AbortController();
  const aborted = load(directory, { signal: controller.signal, queue: "inline" });
  controller.abort(new Error("Enough"));
  await expect(aborted).rejects.toThrow("Enough");
  await expect(
    loadAll(directory, { signal: AbortSignal.abort(new Error("Before")) }),
  ).rejects.toThrow("Before");
});

test("loadAll ends the load of all files if onProgress throws", async () => {
  await saveAll(directory, { a: numbered(100, 1), b: numbered(30_000, 1000) });
  const files = await load(directory, {
    background: true,
    queue: "inline",
    onProgress: () => {
      throw new Error("No more");
    },
  });
  await expect(files.get("b")!.awaitLoad()).rejects.toThrow("No more");
  await files.get("a")!.awaitLoad();
  const { loadedBytes, totalBytes } = files.get("b")!.loadStats();
  expect(loadedBytes).toBeLessThan(totalBytes);
});

test("loadAll prefers a file's own options, and leaves no file if one is bad", async () => {
  await saveAll(directory, { small: numbered(10, 1), large: numbered(2000, 1000) });
  const path = join(directory, "backing");
  const files = await load(directory, {
    fileOptions: (id) => (id === "large" ? { path, name: "on disk" } : {}),
  });
  expect(files.get("large")!.name).toBe("on disk");
  expect(files.get("small")!.name).toBe("small");
  expect(statSync(path).size).toBe(files.get("large")!.totalSizeBytes);
  checkNumbered(files.get("large")!, 1000, 0, 2000);

  await expectNoPages();
  const held = namedDescriptors();
  await expect(loadAll(directory, { limitBytes: 1000 * PAGE_SIZE })).rejects.toThrow(
    OutOfMemoryError,
  );
  await expectDescriptors(held);
});

test("loadAll leaves nothing open if fileOptions throws", async () => {
  await saveAll(directory, { a: numbered(2000, 1), b: numbered(10, 1) });
  await expectNoPages();
  const held = namedDescriptors();
  for (const thrower of ["a", "b"]) {
    const fileOptions = (id: string) => {
      if (id === thrower) throw new Error(`No options for ${id}`);
      return {};
    };
    await expect(loadAll(directory, { fileOptions })).rejects.toThrow(`No options for ${thrower}`);
    await expectDescriptors(held);
  }
});

test("saveAll and loadAll refuse bad arguments by name, before they write anything", async () => {
  const file = numbered(1, 1);
  const refused: [unknown, unknown, string][] = [
    [{}, {}, "1 to 4096 files, got 0"],
    [null, {}, "Expected files to be an object or a Map by id, got null"],
    [{ "": file }, {}, 'got ""'],
    [{ ["x".repeat(256)]: file }, {}, "1 to 255 bytes"],
    [{ "a\0b": file }, {}, "without NUL"],
    [{ "\ud800": file }, {}, "UTF-8"],
    [new Map([[1, file]]), {}, "ids to be strings, got 1"],
    [{ a: {} }, {}, '"a" to be a MemoryFile'],
    [{ a: file, b: file }, {}, 'one file as "a" and "b"'],
    [{ a: file }, { userData: "x" }, 'userData to be a Uint8Array, got "x" (a string)'],
    [{ a: file }, { fileUserData: { b: new Uint8Array(1) } }, 'files that are saved, got "b"'],
    [{ a: file }, { fileUserData: { a: [] } }, 'fileUserData["a"] to be a Uint8Array'],
  ];
  for (const [files, options, message] of refused) {
    await expect(saveAll(directory, files as never, options as never)).rejects.toThrow(message);
  }
  expect(readdirSync(directory)).toEqual([]);
});

test("saveAll saves all files or none", async () => {
  const [a, b] = [numbered(600, 1), numbered(600, 1000)];
  await saveAll(directory, { a, b }, { userData: new Uint8Array([1]) });
  const second = saveAll(directory, { a, b }, { userData: new Uint8Array([2]) });
  await expect(saveAll(directory, { b, a })).rejects.toThrow(CheckpointBusyError);
  await second;
  b.destroy();
  await expect(saveAll(directory, { a, b })).rejects.toThrow(DestroyedError);
  const signal = AbortSignal.abort(new Error("Not now"));
  await expect(saveAll(directory, { a }, { signal })).rejects.toThrow("Not now");
  const files = await load(directory);
  expect([...files.keys()]).toEqual(["a", "b"]);
  expect(files.userData).toEqual(new Uint8Array([2]));
  expect(listing(directory)).toEqual(["meta", "pages"]);
});

test("loadAll refuses names that repeat, are invalid, or too many", async () => {
  await saveAll(directory, { a: numbered(4, 1), b: numbered(4, 9) });
  const { manifest, contents } = openCheckpoint(directory);
  const { fd, path } = contents[0]!;
  const saved: SavedFile[] = manifest.files.map((file) => ({
    ...file,
    crcs: readCrcs(fd, file.crcs, path),
    hashes: readHashes(fd, file.hashes, path),
  }));
  closeContents(contents);
  const [a, b] = saved as [SavedFile, SavedFile];
  const decode = (changed: Partial<Manifest<SavedFile>>) => () => {
    const { parts, lengthBytes } = encodeManifest({ ...manifest, files: saved, ...changed });
    return decodeManifest(parts[0], lengthBytes, "meta");
  };
  expect(decode({})).not.toThrow();
  const refused: [Partial<Manifest<SavedFile>>, string][] = [
    [{ files: [a, { ...b, name: "a" }] }, 'two files "a"'],
    [{ files: [] }, "Expected 1 to 4096 files, got 0"],
    [{ files: [a, { ...b, crcs: b.crcs.subarray(1) }] }, "Expected 16 bytes for 4 pages, got 12"],
    [{ pageFiles: [] }, "is in none of 0 page files"],
  ];
  for (const [changed, message] of refused) {
    expect(decode(changed)).toThrow(message);
    expect(decode(changed)).toThrow(CorruptCheckpointError);
  }
  for (const name of ["", "x\0", "x".repeat(256), "\ud800"])
    expect(decode({ files: [a, { ...b, name }] })).toThrow(RangeError);
});
