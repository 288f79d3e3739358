/**
 * Admission: of many loads that begin together, a few have threads, and none waits for the others.
 */
import { afterEach, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CodecId } from "../../src/codec/codec.ts";
import { HUGE_PAGE_SIZE, MemoryFile, PAGE_SIZE } from "../../src/index.ts";
import { threadCount } from "../../src/threads/pool.ts";
import { dense, type Image, load, pages, sourceOf, wrongPages } from "./support/images.ts";

afterEach(async () => {
  while (threadCount().busy > 0) await Bun.sleep(1);
});

/** Loads that keep the threads of this JavaScript thread, until they are destroyed. */
const holdThreads = (image: Image) =>
  Array.from({ length: 4 }, () => load(image, sourceOf(image, { never: true })));

test("a wanted page admits a load whose source needs an event loop", async () => {
  const image = dense(CodecId.Raw);
  const holding = holdThreads(image);
  using file = load(image, sourceOf(image));
  await file.awaitLoad(pages(3));
  await file.awaitLoad();
  expect(wrongPages(file, image)).toEqual([]);
  for (const held of holding) held.destroy();
});

test("waiters of a load without threads read for themselves, also long ranges", async () => {
  using saved = MemoryFile.create();
  const range = saved.allocate(4 * HUGE_PAGE_SIZE);
  saved.view(range).fill(7);
  const directory = mkdtempSync(join(tmpdir(), "pgalloc-admission-"));
  await saved.saveTo(directory);
  const image = dense(CodecId.Raw);
  const holding = holdThreads(image);
  using file = await MemoryFile.loadFrom(directory, { background: true });
  const long = { start: range.start, end: range.start + 3 * HUGE_PAGE_SIZE };
  await Promise.all([file.awaitLoad(long), file.awaitLoad({ ...long, end: PAGE_SIZE })]);
  expect(file.isLoaded(range)).toBe(false);
  expect(file.view(long).every((byte) => byte === 7)).toBe(true);
  for (const held of holding) held.destroy();
  // It is admitted now.
  await file.awaitLoad();
  rmSync(directory, { recursive: true });
});

test("dozens of loads at once take as many threads as a few", async () => {
  using saved = MemoryFile.create();
  saved.view(saved.allocate(PAGE_SIZE)).fill(7);
  const directory = mkdtempSync(join(tmpdir(), "pgalloc-admission-"));
  await saved.saveTo(directory);
  let most = 0;
  const loads = Array.from({ length: 50 }, async () => {
    using file = await MemoryFile.loadFrom(directory, { background: true });
    await file.awaitLoad();
    const { idle, busy } = threadCount();
    most = Math.max(most, idle + busy);
  });
  await Promise.all(loads);
  // Four have threads: up to four for the background, and one for demands.
  expect(most).toBeLessThanOrEqual(20);
  rmSync(directory, { recursive: true });
});
