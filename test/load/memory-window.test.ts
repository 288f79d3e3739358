import { afterAll, beforeAll, expect, spyOn, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { mapAnonymous, unmap } from "../../ffi/index.ts";
import { MemoryFile, PAGE_SIZE } from "../../src/index.ts";
import { MemoryWindow } from "../../src/load/memory-window.ts";

const PAGES = 100;

let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "pgalloc-window-"));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

test("pages are views of the memory, within a stretch and across to the next", () => {
  const base = mapAnonymous(PAGES * PAGE_SIZE);
  const window = new MemoryWindow(base, PAGES, 16);
  window.cover(0, PAGES);
  const all = window.pages(0, PAGES).slice();
  for (let page = 0; page < PAGES; page++)
    all.fill(page + 1, page * PAGE_SIZE, (page + 1) * PAGE_SIZE);
  window.pages(0, PAGES).set(all);
  for (const [start, end] of [
    [3, 5],
    [15, 17],
    [98, 100],
    [40, 41],
  ] as const) {
    window.cover(start, end);
    expect(window.pages(start, end - start)).toEqual(
      all.subarray(start * PAGE_SIZE, end * PAGE_SIZE),
    );
  }
  window.close();
  unmap(base, PAGES * PAGE_SIZE);
});

test("one buffer serves a stretch, and has length 0 once the window moved or closed", () => {
  const base = mapAnonymous(PAGES * PAGE_SIZE);
  const window = new MemoryWindow(base, PAGES, 16);
  window.cover(17, 18);
  const first = window.pages(17, 1);
  window.cover(16, 32);
  expect(window.pages(31, 1).buffer).toBe(first.buffer);
  window.cover(32, 33);
  expect(first).toHaveLength(0);
  const second = window.pages(32, 1);
  window.close();
  expect(second).toHaveLength(0);
  unmap(base, PAGES * PAGE_SIZE);
});

test("a load of 128 MiB makes buffers of 64 MiB, and a small one for a demand", async () => {
  const source = MemoryFile.create();
  source.view(source.allocate(2 ** 27)).fill(7);
  await source.saveTo(join(directory, "checkpoint"));
  source.destroy();
  using file = await MemoryFile.loadFrom(join(directory, "checkpoint"), {
    background: true,
    queue: "inline",
  });
  const crc32 = spyOn(Bun.hash, "crc32");
  try {
    file.awaitLoadSync({ start: 100 * PAGE_SIZE, end: 101 * PAGE_SIZE });
    await file.awaitLoad();
    const buffers = new Set(crc32.mock.calls.map(([data]) => (data as Uint8Array).buffer));
    expect(buffers.size).toBeGreaterThanOrEqual(2);
    expect(buffers.size).toBeLessThanOrEqual(4);
  } finally {
    crc32.mockRestore();
  }
});
