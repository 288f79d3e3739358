/** The working set: recorded by one start, read first by the next, never needed. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MemoryFile, PAGE_SIZE } from "../../src/index.ts";
import { listFirstPages, takeFirst } from "../../src/load/first-pages.ts";
import { BLOCK_PAGES, merge } from "../../src/restore/working-set.ts";
import { listing } from "../checkpoint/support/page-files.ts";

const BLOCK_BYTES = BLOCK_PAGES * PAGE_SIZE;
let directory: string;
let path: string;
beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), "pgalloc-working-set-"));
  path = join(directory, "working-set");
  using file = MemoryFile.create();
  const words = file.view(file.allocate(64 * 2 ** 20), Uint32Array);
  for (let page = 0; page < 64 * 256; page++) words[page * 1024] = page + 1;
  await file.saveTo(directory);
});
afterEach(() => rmSync(directory, { recursive: true }));

/** A block of the file, by its number. */
const block = (number: number) => ({
  start: number * BLOCK_BYTES,
  end: (number + 1) * BLOCK_BYTES,
});

/**
 * Starts as a program that uses these blocks. Returns the load's statistics about the working set.
 */
async function start(blocks: readonly number[]) {
  using file = await MemoryFile.loadFrom(directory, { background: true });
  for (const number of blocks) {
    await file.awaitLoad(block(number));
    expect(file.view(block(number), Uint32Array)[0]).toBe(number * BLOCK_PAGES + 1);
  }
  file.markReady();
  const { workingSetBytes, wastedBytes } = file.loadStats();
  return [workingSetBytes / BLOCK_BYTES, wastedBytes / BLOCK_BYTES];
}

function stored(): { blocks: number[]; weights: number[] } {
  const { files } = JSON.parse(readFileSync(path, "utf8"));
  return Object.values(files)[0] as { blocks: number[]; weights: number[] };
}

describe("loadFrom", () => {
  test("records what a start uses, in order, and reports it at the next", async () => {
    expect(await start([900, 3, 400])).toEqual([0, 0]);
    expect(stored()).toEqual({ blocks: [900, 3, 400], weights: [1, 1, 1] });
    expect(await start([900, 3])).toEqual([3, 1]);
  });

  test("drops a block that two starts in a row did not use", async () => {
    await start([1, 2]);
    await start([1]);
    expect(stored()).toEqual({ blocks: [1, 2], weights: [1, 0.5] });
    await start([1]);
    expect(stored()).toEqual({ blocks: [1], weights: [1] });
  });

  test("reads the working set before the rest", async () => {
    await start([1000, 1010]);
    using file = await MemoryFile.loadFrom(directory, { background: true, queue: "inline" });
    // In line, the pass makes its first step in the first turn of the event loop.
    while (!file.isLoaded(block(1000))) await new Promise((resolve) => setImmediate(resolve));
    expect(file.isLoaded({ start: 32 * 2 ** 20, end: 33 * 2 ** 20 })).toBe(false);
    await file.awaitLoad();
    expect(file.view(block(1000), Uint32Array)[0]).toBe(1000 * BLOCK_PAGES + 1);
  });

  test("ends the recording after 300 ms of quiet", async () => {
    using file = await MemoryFile.loadFrom(directory, { background: true });
    await file.awaitLoad(block(7));
    while (!existsSync(path)) await Bun.sleep(10);
    expect(stored().blocks).toEqual([7]);
    await file.awaitLoad(block(8));
    file.markReady();
    await Bun.sleep(20);
    expect(stored().blocks).toEqual([7]);
  });

  test("has written the working set when markReady returns, and writes nothing later", async () => {
    const file = await MemoryFile.loadFrom(directory, { background: true });
    await file.awaitLoad(block(7));
    file.markReady();
    file.destroy();
    const written = listing(directory);
    expect(written).toEqual(["meta", "pages", "working-set"]);
    await Bun.sleep(20);
    expect(listing(directory)).toEqual(written);
  });

  test("records at another path, or nowhere", async () => {
    const elsewhere = join(directory, "elsewhere.json");
    for (const workingSet of [elsewhere, false] as const) {
      using file = await MemoryFile.loadFrom(directory, { background: true, workingSet });
      await file.awaitLoad(block(7));
      file.markReady();
    }
    expect([existsSync(elsewhere), existsSync(path)]).toEqual([true, false]);
    const wrong = { background: true, workingSet: 5 as never };
    expect(MemoryFile.loadFrom(directory, wrong)).rejects.toThrow(TypeError);
  });

  test("continues if the working set cannot be written", async () => {
    const workingSet = "/proc/nowhere/working-set";
    using file = await MemoryFile.loadFrom(directory, { background: true, workingSet });
    await file.awaitLoad(block(7));
    file.markReady();
    while (file.metrics().errors["system"] !== 1) await Bun.sleep(1);
    await file.awaitLoad();
  });

  test.each([
    "",
    "{",
    "null",
    "[]",
    '{"format":1,"id":"ID","files":{"main":{"blocks":[-1],"weights":[1]}}}',
    '{"format":1,"id":"ID","files":{"main":{"blocks":[1e9],"weights":[1]}}}',
    '{"format":1,"id":"ID","files":{"main":{"blocks":[1],"weights":[]}}}',
    '{"format":1,"id":"ID","files":{"main":{"blocks":"x","weights":[]}}}',
    '{"format":1,"id":"ID","files":7}',
    '{"format":1,"id":"0000000000000000","files":{"main":{"blocks":[1],"weights":[1]}}}',
  ])("ignores a working set that contains %j", async (text) => {
    await start([5]);
    const { id } = JSON.parse(readFileSync(path, "utf8"));
    writeFileSync(path, text.replace("ID", id));
    using file = await MemoryFile.loadFrom(directory, { background: true });
    expect(file.loadStats().workingSetBytes).toBe(0);
    await file.awaitLoad();
  });

  test("ignores blocks behind the end, and blocks without contents", async () => {
    await start([5]);
    const text = readFileSync(path, "utf8");
    writeFileSync(
      path,
      text.replace(
        '"blocks":[5],"weights":[1]',
        '"blocks":[5,1023,1024,9999999],"weights":[1,1,1,1]',
      ),
    );
    using file = await MemoryFile.loadFrom(directory, { background: true });
    expect(file.loadStats().workingSetBytes).toBe(4 * BLOCK_BYTES);
    await file.awaitLoad();
    expect(file.view(block(5), Uint32Array)[0]).toBe(5 * BLOCK_PAGES + 1);
  });

  test("takes the working set along when the file is saved over its checkpoint", async () => {
    await start([5, 8]);
    {
      using file = await MemoryFile.loadFrom(directory, { background: true });
      await file.awaitLoad(block(5));
      file.markReady();
      await file.awaitLoad();
      const { id } = await file.saveTo(directory);
      expect(JSON.parse(readFileSync(path, "utf8"))).toMatchObject({ id });
    }
    expect(stored()).toEqual({ blocks: [5, 8], weights: [1, 0.5] });
    // As much is read first.
    expect(await start([5])).toEqual([2, 1]);
  });

  test("leaves no temporary file, and the next save ignores the working set", async () => {
    await start([5]);
    using file = await MemoryFile.loadFrom(directory);
    await file.saveTo(directory, { userData: Uint8Array.of(1) });
    const names = readdirSync(directory).map((name) => name.replace(/^pages-.*/, "pages"));
    expect([...new Set(names)].sort()).toEqual(["meta", "pages", "working-set"]);
    using again = await MemoryFile.loadFrom(directory, { background: true });
    expect(again.loadStats().workingSetBytes).toBe(0); // another id
  });
});

test("merge puts the order of this start before that of earlier ones", () => {
  const known = new Map([
    [1, 1],
    [2, 0.5],
    [3, 1],
  ]);
  expect([...merge(known, new Set([9, 3]))]).toEqual([
    [9, 1],
    [3, 1],
    [1, 0.5],
  ]);
});

test("takeFirst returns each unit once, with all its blocks, in the order of first use", () => {
  const words = new Int32Array(new SharedArrayBuffer(80));
  const entries = listFirstPages([40, 1, 33, 2], BLOCK_PAGES);
  const want = new Int32Array(16);
  const taken: number[][] = [];
  while (true) {
    const unit = takeFirst(words, entries, 2, want);
    if (unit < 0) break;
    const pages = [...want.keys()].flatMap((word) => (want[word] === 0 ? [] : [word]));
    taken.push([unit, ...pages]);
  }
  expect(taken).toEqual([
    [1, 0, 4],
    [0, 0, 1],
  ]);
  expect(takeFirst(words, null, 2, want)).toBe(-1);
});
