/** Interrupted saves, and saves beside loads: the contents of the directory and of the files. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setFaultHook } from "../../ffi/index.ts";
import { CheckpointBusyError, MemoryFile, PAGE_SIZE, type SaveProgress } from "../../src/index.ts";
import { expectDescriptors, namedDescriptors } from "../safety/support/descriptors.ts";
import { checkNumbered, contentsOf, numberedFile } from "./support/contents.ts";
import { listing } from "./support/page-files.ts";

const PAGES = 600;
let directory: string;
let before: string[];

beforeEach(() => {
  before = namedDescriptors();
  directory = mkdtempSync(join(tmpdir(), "pgalloc-interrupted-"));
});
afterEach(async () => {
  setFaultHook(undefined);
  rmSync(directory, { recursive: true });
  await expectDescriptors(before);
});

/** The seed of the file in the directory's checkpoint. Compares all of it. */
async function seedInDirectory(): Promise<number> {
  using back = await MemoryFile.loadFrom(directory);
  const seed = back.view({ start: 0, end: PAGE_SIZE }, Uint32Array)[0]!;
  checkNumbered(back, seed, 0, PAGES);
  return seed;
}

test("saveTo aborted at any system call leaves the old or the new checkpoint", async () => {
  using old = numberedFile(PAGES, 1);
  using file = numberedFile(PAGES, 100_000);
  let aborted = 0;
  let isOver = false;
  for (let at = 0; !isOver; at++) {
    await old.saveTo(directory);
    const controller = new AbortController();
    let calls = 0;
    setFaultHook(() => {
      if (calls++ === at) controller.abort(new Error(`Aborted at ${at}`));
      return undefined;
    });
    const failure = await file
      .saveTo(directory, { signal: controller.signal })
      .catch((error) => error);
    setFaultHook(undefined);
    isOver = calls <= at;
    const isAborted = failure instanceof Error;
    if (isAborted) expect(failure.message).toBe(`Aborted at ${at}`);
    if (isAborted) aborted++;
    expect(listing(directory)).toEqual(["meta", "pages"]);
    expect(await seedInDirectory()).toBe(isAborted ? 1 : 100_000);
  }
  // Until the commit an abort ends the save. The save that no call interrupted succeeded.
  expect(aborted).toBeGreaterThan(5);
});

test("saveTo ends if onProgress throws, at its first or last report", async () => {
  using old = numberedFile(PAGES, 1);
  await old.saveTo(directory);
  using file = numberedFile(PAGES, 100_000);
  const seen: SaveProgress[] = [];
  for (const throwAt of ["first", "last"]) {
    const onProgress = (progress: SaveProgress) => {
      seen.push(progress);
      if (throwAt === "first" || progress.writtenBytes === progress.totalBytes)
        throw new Error(`At the ${throwAt}`);
    };
    await expect(file.saveTo(directory, { onProgress })).rejects.toThrow(`At the ${throwAt}`);
    expect(listing(directory)).toEqual(["meta", "pages"]);
    expect(await seedInDirectory()).toBe(1);
  }
  expect(seen.at(-1)).toEqual({ writtenBytes: PAGES * PAGE_SIZE, totalBytes: PAGES * PAGE_SIZE });
});

for (const queue of ["workers", "inline"] as const) {
  test(`saveTo waits for the background load of the same file (${queue})`, async () => {
    const pages = 6000;
    using file = numberedFile(pages, 1);
    await file.saveTo(directory);
    using back = await MemoryFile.loadFrom(directory, { background: true, queue });
    const save = back.saveTo(directory);
    await save;
    expect(back.isLoading).toBe(false);
    using again = await MemoryFile.loadFrom(directory);
    checkNumbered(again, 1, 0, pages);
  });
}

test("loadFrom loads the first checkpoint while saves replace it", async () => {
  const pages = 6000;
  using file = numberedFile(pages, 1);
  await file.saveTo(directory);
  using other = numberedFile(pages, 100_000);
  // In line: it reads in turns of this thread's event loop, between the steps of the saves.
  using back = await MemoryFile.loadFrom(directory, { background: true, queue: "inline" });
  await other.saveTo(directory);
  await back.awaitLoad({ start: 5000 * PAGE_SIZE, end: 5001 * PAGE_SIZE });
  await other.saveTo(directory);
  await back.awaitLoad();
  checkNumbered(back, 1, 0, pages);
  using now = await MemoryFile.loadFrom(directory);
  checkNumbered(now, 100_000, 0, pages);
});

test("saveTo succeeds once of two at once into one directory, and twice into two", async () => {
  using file = numberedFile(PAGES, 1);
  using other = numberedFile(PAGES, 100_000);
  const first = file.saveTo(directory);
  await expect(other.saveTo(directory)).rejects.toThrow(CheckpointBusyError);
  await expect(other.saveTo(directory)).rejects.toMatchObject({
    code: "ERR_CHECKPOINT_BUSY",
    path: directory,
  });
  await first;
  expect(await seedInDirectory()).toBe(1);
  const two = join(directory, "two");
  await Promise.all([other.saveTo(directory), other.saveTo(two)]);
  expect(await seedInDirectory()).toBe(100_000);
  using back = await MemoryFile.loadFrom(two);
  checkNumbered(back, 100_000, 0, PAGES);
  rmSync(two, { recursive: true });
});

test("saveTo writes right checksums of pages that change meanwhile", async () => {
  const pages = 4000;
  using file = numberedFile(pages, 1);
  const range = { start: 0, end: pages * PAGE_SIZE };
  const words = file.view(range, Uint32Array);
  let version = 1;
  const timer = setInterval(() => {
    version++;
    for (let page = 0; page < pages; page++)
      words.fill(version, (page * PAGE_SIZE) / 4, (page * PAGE_SIZE) / 4 + 8);
  }, 0);
  await file.saveTo(directory);
  clearInterval(timer);
  // Loading checks every page's checksum.
  using back = await MemoryFile.loadFrom(directory);
  expect(contentsOf(back).pages.size).toBe(pages);
  const saved = back.view(range, Uint32Array);
  for (let page = 0; page < pages; page++) {
    const word = saved[(page * PAGE_SIZE) / 4]!;
    if (word !== page + 1 && word > version)
      throw new Error(`Page ${page} holds ${word}, which was never written`);
  }
});
