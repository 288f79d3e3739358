/** The working set: recorded by one start, read first by the next, never needed. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import { Store } from "../../src/data/index.ts";
import { MemoryFile, PAGE_SIZE } from "../../src/index.ts";
import { listFirstPages, takeFirst } from "../../src/load/first-pages.ts";
import { BLOCKS_MAX, createUses, UseRecord } from "../../src/load/use-record.ts";
import { merge } from "../../src/restore/working-set.ts";
import { listing } from "../checkpoint/support/page-files.ts";
import { denseState } from "../load/support/dense-state.ts";

/** Of files. */
const BLOCK_PAGES = 4;
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
    '{"format":2,"blockPages":4,"id":"ID","files":{"main":{"blocks":[-1],"weights":[1]}}}',
    '{"format":2,"blockPages":4,"id":"ID","files":{"main":{"blocks":[1e9],"weights":[1]}}}',
    '{"format":2,"blockPages":4,"id":"ID","files":{"main":{"blocks":[1],"weights":[]}}}',
    '{"format":2,"blockPages":4,"id":"ID","files":{"main":{"blocks":"x","weights":[]}}}',
    '{"format":2,"blockPages":4,"id":"ID","files":7}',
    '{"format":2,"blockPages":4,"id":"0000000000000000","files":{"main":{"blocks":[1],"weights":[1]}}}',
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
        '"blocks":[5,4095,4096,9999999],"weights":[1,1,1,1]',
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

describe("a recording", () => {
  test("has what is viewed after all is loaded, until markReady", async () => {
    using file = await MemoryFile.loadFrom(directory, { background: true });
    await file.awaitLoad();
    file.view(block(9));
    file.views(block(4));
    file.markReady();
    file.view(block(5));
    expect(stored().blocks).toEqual([9, 4]);
  });

  test("has what other threads use", async () => {
    using file = await MemoryFile.loadFrom(directory, { background: true });
    const handle = file.share();
    const source = `
      import { MemoryFile } from ${JSON.stringify(join(import.meta.dir, "../../src/index.ts"))};
      import { parentPort, workerData } from "node:worker_threads";
      const file = MemoryFile.attach(workerData, { readOnly: true });
      file.awaitLoadSync(${JSON.stringify(block(77))});
      file.markReady();
      parentPort.postMessage(0);`;
    const program = join(directory, "worker.ts");
    writeFileSync(program, source);
    const worker = new Worker(program, { workerData: handle });
    await new Promise((resolve) => worker.once("message", resolve));
    while (!existsSync(path)) await Bun.sleep(10);
    expect(stored().blocks).toEqual([77]);
    await worker.terminate();
  });

  test("has what a store reads from pages that are loaded already", async () => {
    const where = join(directory, "store");
    {
      await using store = await Store.open(where, { create: true });
      const map = store.map("numbers");
      for (let i = 0; i < 20_000; i++) map.set(`${i}`, Buffer.alloc(100, i));
    }
    const wasted: number[] = [];
    for (let starts = 0; starts < 4; starts++) {
      const store = await Store.open(where, { readOnly: true });
      await store.memory.awaitLoad();
      for (let i = 0; i < 20_000; i += 500) store.map("numbers").get(`${i}`);
      store.memory.markReady();
      const { workingSetBytes, wastedBytes } = store.memory.loadStats();
      if (starts > 0) expect(workingSetBytes).toBeGreaterThan(0);
      wasted.push(wastedBytes);
      await store.close();
    }
    expect(wasted).toEqual([0, 0, 0, 0]);
  });

  test("does not grow with the number of starts", async () => {
    const sizes: number[] = [];
    for (let starts = 0; starts < 12; starts++) {
      // 8 blocks of every start, and 8 that no other start uses.
      await start(Array.from({ length: 16 }, (_, i) => (i < 8 ? i : 100 + 16 * starts + i)));
      sizes.push(stored().blocks.length);
    }
    expect(sizes).toEqual([16, ...new Array<number>(11).fill(24)]);
  });
});

describe("a save", () => {
  /** The number in each page of the newest page file. */
  function pagesStored(): number[] {
    const [name] = readdirSync(directory).filter((entry) => entry.startsWith("pages-"));
    const words = new Uint32Array(readFileSync(join(directory, name!)).buffer);
    return Array.from({ length: Math.floor(words.length / 1024) }, (_, i) => words[i * 1024]! - 1);
  }
  const pagesOf = (blocks: readonly number[]) =>
    blocks.flatMap((number) => Array.from({ length: BLOCK_PAGES }, (_, i) => 4 * number + i));

  test("of all contents stores the working set first, in the order of its use", async () => {
    await start([900, 3, 400]);
    {
      using file = await MemoryFile.loadFrom(directory, { background: true });
      file.markReady();
      const report = await file.compact();
      expect(report).toMatchObject({ pagesBytes: 64 * 2 ** 20, reusedBytes: 0, pageFiles: 1 });
    }
    const pages = pagesStored();
    expect(pages.slice(0, 12)).toEqual(pagesOf([900, 3, 400]));
    expect(pages.slice(12, 15)).toEqual([0, 1, 2]);
    expect(pages.length).toBe(64 * 256 + 1); // and the trailer
    expect(await start([900, 3, 400])).toEqual([3, 0]);
  });

  test("of compressed contents gives the working set frames of its own", async () => {
    const compact = async () => {
      using file = await MemoryFile.loadFrom(directory, { background: true });
      file.markReady();
      await file.compact(directory, { compression: "zstd" });
    };
    /** Bytes that are loaded because the program awaits a block. */
    const bytesForBlock = async () => {
      const options = { background: true, queue: "inline", workingSet: false } as const;
      using file = await MemoryFile.loadFrom(directory, options);
      await file.awaitLoad(block(900));
      expect(file.view(block(900), Uint32Array)[0]).toBe(3601);
      return file.loadStats().demandBytes;
    };
    await compact();
    expect(await bytesForBlock()).toBe(2 ** 21);
    await start([900, 3]);
    await compact();
    expect(await bytesForBlock()).toBe(BLOCK_BYTES);
  });

  test("of all contents keeps what changed during the start", async () => {
    await start([900]);
    {
      using file = await MemoryFile.loadFrom(directory, { background: true });
      await file.awaitLoad();
      file.view(block(900), Uint32Array)[1] = 5;
      file.markReady();
      await file.compact();
    }
    using again = await MemoryFile.loadFrom(directory);
    expect(again.view(block(900), Uint32Array).slice(0, 2)).toEqual(Uint32Array.of(3601, 5));
    const all = again.view({ start: 0, end: 64 * 2 ** 20 }, Uint32Array);
    for (let page = 0; page < 64 * 256; page++) expect(all[page * 1024]).toBe(page + 1);
  });

  test("that compacts moves the working set first, in the order of its use", async () => {
    await start([4000, 3800]);
    {
      using file = await MemoryFile.loadFrom(directory, { background: true });
      file.markReady();
      await file.awaitLoad();
      // Nine tenths of the pages change, so the last tenth is moved.
      const words = file.view({ start: 0, end: 64 * 2 ** 20 }, Uint32Array);
      for (let page = 0; page < 15_000; page++) words[page * 1024 + 1] = 1;
      expect(await file.saveTo(directory)).toMatchObject({ pageFiles: 1 });
    }
    const pages = pagesStored();
    expect(pages.slice(15_000, 15_008)).toEqual(pagesOf([4000, 3800]));
    expect(pages.slice(15_008, 15_010)).toEqual([15_000, 15_001]);
  });
});

test("UseRecord keeps the order of first use, whichever thread it is", () => {
  const buffer = createUses(100, 4);
  const [one, other] = [new UseRecord(buffer), new UseRecord(buffer)];
  one.note(40, 41);
  other.note(0, 9);
  one.note(4, 44);
  one.note(99, 5000);
  expect(other.inOrder()).toEqual([10, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 24]);
  expect([other.has(10), other.has(11), other.has(10 ** 6)]).toEqual([true, false, false]);
  one.end();
  other.note(80, 84);
  expect(one.count).toBe(12);
});

test("takeFirst ends if the start is not like the earlier ones", () => {
  const known = Array.from({ length: 40 }, (_, i) => 128 * i);
  const first = listFirstPages(known, BLOCK_PAGES);
  const want = new Int32Array(16);
  for (const [common, isOther] of [
    [1, true],
    [2, false],
  ] as const) {
    const state = denseState(40, undefined, first);
    const uses = new UseRecord(createUses(40 * 512, BLOCK_PAGES, known));
    expect(takeFirst(state, uses, want)).toBe(0);
    for (let unit = 1; unit <= 8; unit++) {
      const page = 512 * unit + (unit <= common ? 0 : 100);
      uses.note(page, page + 1);
    }
    expect(uses.isOther).toBe(isOther);
    expect(takeFirst(state, uses, want)).toBe(isOther ? -1 : 3);
    expect(takeFirst(state, uses, want)).toBe(isOther ? -1 : 4);
  }
});

test("UseRecord has at most 65,536 blocks", () => {
  const record = new UseRecord(createUses(2 ** 20, 4));
  record.note(0, 2 ** 20);
  expect(record.inOrder().length).toBe(BLOCKS_MAX);
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
  const first = listFirstPages([160, 4, 132, 8], BLOCK_PAGES);
  const state = denseState(2, undefined, first);
  const want = new Int32Array(16);
  const taken: number[][] = [];
  while (true) {
    const unit = takeFirst(state, null, want);
    if (unit < 0) break;
    const pages = [...want.keys()].flatMap((word) => (want[word] === 0 ? [] : [word]));
    taken.push([unit, ...pages]);
  }
  expect(taken).toEqual([
    [1, 0, 4],
    [0, 0, 1],
  ]);
});
