/** refresh of files that were loaded from a directory: its failures leave nothing behind. */
import { afterAll, afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DestroyedError, MemoryFile, PAGE_SIZE, UnsupportedError } from "../../src/index.ts";
import { PAGES_PER_HUGE_PAGE as PAGES_PER_UNIT } from "../../src/pages/units.ts";
import { FileCore } from "../../src/core/core.ts";
import { terminateIdleThreads } from "../../src/threads/idle.ts";

const LENGTH_BYTES = 2 ** 20;
let directory: string;
let writer: MemoryFile;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "pgalloc-refresh-"));
  writer = MemoryFile.create();
  writer.view(writer.allocate(LENGTH_BYTES)).fill(1);
});
afterEach(() => {
  writer.destroy();
  rmSync(directory, { recursive: true });
});
afterAll(() => terminateIdleThreads());

async function save(value: number): Promise<void> {
  writer.view({ start: 0, end: LENGTH_BYTES })[0] = value;
  await writer.saveTo(directory);
}

const firstByte = (file: MemoryFile) => file.view({ start: 0, end: LENGTH_BYTES })[0];

test("refresh destroys the new file if the old one is destroyed meanwhile", async () => {
  await save(1);
  const file = await MemoryFile.loadFrom(directory);
  await save(2);
  const refreshing = file.refresh();
  // The new file is there when the old one ends.
  const destroyed: FileCore[] = [];
  const { destroy } = FileCore.prototype;
  FileCore.prototype.destroy = function (this: FileCore) {
    destroyed.push(this);
    destroy.call(this);
  };
  try {
    file.destroy();
    await expect(refreshing).rejects.toThrow(DestroyedError);
  } finally {
    FileCore.prototype.destroy = destroy;
  }
  expect(destroyed.length).toBe(2);
});

test("refresh gives every page of the newest checkpoint in turns with the program", async () => {
  const pages = 16 * PAGES_PER_UNIT;
  const range = writer.allocate(pages * PAGE_SIZE);
  const words = writer.view(range, Uint32Array);
  const wordOf = (page: number) => page * (PAGE_SIZE / 4);
  // Units with all pages, with gaps, and with few pages.
  const isThere = (page: number) => page < 2048 || page % (page < 4096 ? 4 : 64) !== 0;
  for (let page = 0; page < pages; page++) if (isThere(page)) words[wordOf(page)] = page + 1;
  await writer.saveTo(directory);
  using reader = await MemoryFile.loadFrom(directory);
  for (let round = 1; round <= 3; round++) {
    // Some units whole, and some pages of all others.
    for (let page = 0; page < pages; page++)
      if (page % 509 === round || page >> 9 === 2 * round) words[wordOf(page) + round] = page;
    await writer.saveTo(directory);
    let turns = 0;
    const timer = setInterval(() => turns++, 0);
    expect(await reader.refresh()).toBe(true);
    clearInterval(timer);
    expect(Buffer.compare(reader.view(range), writer.view(range))).toBe(0);
    expect(turns).toBeGreaterThan(0);
  }
});

test("refresh works after the signal of the load was aborted", async () => {
  await save(1);
  const controller = new AbortController();
  using file = await MemoryFile.loadFrom(directory, { signal: controller.signal });
  controller.abort();
  await save(2);
  expect(await file.refresh()).toBe(true);
  expect(firstByte(file)).toBe(2);
});

test("refresh of a file on disk says why it cannot", async () => {
  await save(1);
  const path = join(directory, "memory");
  using file = await MemoryFile.loadFrom(directory, { path });
  await expect(file.refresh()).rejects.toThrow(UnsupportedError);
  await expect(file.refresh()).rejects.toThrow(`option path, "${path}"`);
  expect(firstByte(file)).toBe(1);
});
