/** Views over a mapping: which are kept, and that every one is detached in the end. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { closeSync, constants, mkdtempSync, openSync, read, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { bufferAt, mapAnonymous, syscallCounts, unmap } from "../../ffi/index.ts";
import { MemoryFile, PAGE_SIZE } from "../../src/index.ts";
import { Views } from "../../src/memory/views.ts";

const PAGES = 64;
let base = 0;
beforeAll(() => {
  base = mapAnonymous(PAGES * PAGE_SIZE);
});
afterAll(() => unmap(base, PAGES * PAGE_SIZE));

const bytesOf = (views: Views, page: number, pages = 1) =>
  views.get(page, page + pages, Uint8Array<ArrayBuffer>, 0);

test("get returns the same view for the same range and type", () => {
  const views = new Views(base, () => {});
  const first = bytesOf(views, 1);
  expect(bytesOf(views, 1)).toBe(first);
  first[8] = 7;
  const longer = bytesOf(views, 1, 2);
  expect(longer.byteLength).toBe(2 * PAGE_SIZE);
  expect(longer[8]).toBe(7);
  const words = views.get(1, 3, Float64Array, 0);
  expect(words.length).toBe((2 * PAGE_SIZE) / 8);
  expect(words.buffer).toBe(longer.buffer);
  expect(views.detachAll()).toBe(true);
  expect([first.length, longer.length, words.length]).toEqual([0, 0, 0]);
});

test("find returns the kept view of a range and type, fresh while no page was discarded", () => {
  const views = new Views(base, () => {});
  const bytes = views.get(1, 2, Uint8Array, 5);
  const floats = views.get(2, 4, Float32Array, 5);
  expect(views.find(2, 4, Float32Array)).toBe(floats);
  expect(views.find(1, 2, Uint8Array)).toBe(bytes);
  expect([views.isFresh(bytes, 5), views.isFresh(bytes, 6)]).toEqual([true, false]);
  views.renew(bytes, 6);
  expect(views.isFresh(bytes, 6)).toBe(true);
  // Nothing is known of another view.
  expect(views.isFresh(floats, 5)).toBe(false);
  for (const found of [
    views.find(1, 3, Uint8Array),
    views.find(1, 2, Float32Array),
    views.find(2, 4, Uint8Array),
    views.find(3, 4, Uint8Array),
  ])
    expect(found).toBeUndefined();
  floats.buffer.transfer();
  bytes.buffer.transfer();
  expect(views.find(1, 2, Uint8Array)).toBeUndefined();
  expect(views.find(2, 4, Float32Array)).toBeUndefined();
  expect(views.detachAll()).toBe(true);
  expect(views.find(1, 2, Uint8Array)).toBeUndefined();
});

test("get does not return a view that its user transferred away", () => {
  let escapes = 0;
  const views = new Views(base, () => escapes++);
  const first = bytesOf(views, 0);
  first.buffer.transfer();
  expect(bytesOf(views, 0).byteLength).toBe(PAGE_SIZE);
  expect(escapes).toBe(1);
  bytesOf(views, 1).buffer.transfer();
  expect(views.detachAll()).toBe(true);
  expect(escapes).toBe(2);
});

test("get keeps a bounded number of views; dropped ones stay usable and are detached too", () => {
  for (const [maxCount, maxBytes] of [
    [8, Number.POSITIVE_INFINITY],
    [Number.POSITIVE_INFINITY, 8 * PAGE_SIZE],
  ] as const) {
    const views = new Views(base, () => {}, maxCount, maxBytes);
    const all = Array.from({ length: PAGES }, (_, page) => bytesOf(views, page));
    all.forEach((view, page) => {
      view[0] = page;
    });
    const same = all.filter(
      (view, page) => bytesOf(views, PAGES - 1 - page) === all[PAGES - 1 - page] && view.length > 0,
    );
    expect(same.length).toBeGreaterThan(0);
    expect(same.length).toBeLessThanOrEqual(8);
    expect(all.map((view) => view[0]!)).toEqual(all.map((_, page) => page));
    expect(views.detachAll()).toBe(true);
    expect(all.every((view) => view.length === 0)).toBe(true);
  }
});

test("get keeps as many views as its budget allows, in any order", () => {
  for (const limits of [
    [16, Number.POSITIVE_INFINITY],
    [Number.POSITIVE_INFINITY, 16 * PAGE_SIZE],
  ] as const) {
    const views = new Views(base, () => {}, ...limits);
    for (let page = 16; page < PAGES; page++) bytesOf(views, page);
    const first = Array.from({ length: 16 }, (_, page) => bytesOf(views, page));
    for (let step = 0; step < 200; step++)
      expect(bytesOf(views, (step * 7) % 16)).toBe(first[(step * 7) % 16]!);
    expect(views.detachAll()).toBe(true);
  }
});

test("get keeps a view that is used from time to time, however many others come and go", () => {
  const views = new Views(base, () => {}, 16);
  const kept = bytesOf(views, 0);
  for (let round = 0; round < 10; round++) {
    for (let page = 1; page < PAGES; page++) {
      bytesOf(views, page);
      if (page % 4 !== 0) continue;
      // It is used, as two types in turn.
      const type = page % 8 === 0 ? Uint8Array : Int32Array;
      expect(views.get<ArrayBufferView>(0, 1, type, 0).buffer).toBe(kept.buffer);
    }
  }
  expect(views.detachAll()).toBe(true);
});

test("get gives each range its own memory in any order, and detachAll ends all", () => {
  new Int32Array(bufferAt(base, PAGES * PAGE_SIZE)).forEach((_, i, words) => {
    if (i % (PAGE_SIZE / 4) === 0) words[i] = i / (PAGE_SIZE / 4);
  });
  const get = fc.record({
    page: fc.nat(PAGES - 4),
    pages: fc.integer({ min: 1, max: 4 }),
    type: fc.nat(3),
    transfer: fc.boolean(),
  });
  fc.assert(
    fc.property(
      fc.array(get, { maxLength: 300 }),
      fc.integer({ min: 1, max: 40 }),
      (gets, maxCount) => {
        let escapes = 0;
        const views = new Views(base, () => escapes++, maxCount);
        const seen = gets.map(({ page, pages, type, transfer }) => {
          const view = views.get<ArrayBufferView<ArrayBuffer>>(
            page,
            page + pages,
            [Uint8Array, Float64Array, DataView, Int32Array][type]!,
            0,
          );
          expect(view.byteLength).toBe(pages * PAGE_SIZE);
          expect(new Int32Array(view.buffer)[0]).toBe(page);
          if (transfer) view.buffer.transfer();
          return view;
        });
        const transferred = new Set(
          seen.filter((_, i) => gets[i]!.transfer).map(({ buffer }) => buffer),
        ).size;
        expect(views.detachAll()).toBe(true);
        expect(escapes).toBe(transferred);
        expect(seen.every(({ buffer }) => buffer.byteLength === 0)).toBe(true);
      },
    ),
    { numRuns: 200 },
  );
});

test("get finds each of many views again", () => {
  const pages = 20_000;
  const memory = mapAnonymous(pages * PAGE_SIZE);
  const views = new Views(memory, () => {});
  const first = Array.from({ length: pages }, (_, page) => bytesOf(views, page));
  expect(first.every((view, page) => bytesOf(views, page) === view)).toBe(true);
  expect(views.detachAll()).toBe(true);
  unmap(memory, pages * PAGE_SIZE);
});

test("get makes new views of a range whose DataView's buffer was transferred away", () => {
  const views = new Views(base, () => {});
  views.get(0, 1, DataView, 0).buffer.transfer();
  expect(views.get(0, 1, DataView, 0).byteLength).toBe(PAGE_SIZE);
  expect(bytesOf(views, 0).byteLength).toBe(PAGE_SIZE);
  expect(views.detachAll()).toBe(true);
});

test("get accepts types that make other views, ask for views, or end the file", () => {
  const views = new Views(base, () => {});
  const first = bytesOf(views, 0);
  class Other {
    constructor() {
      // biome-ignore lint/correctness/noConstructorReturn: what a program could do.
      return new Uint8Array(PAGE_SIZE);
    }
  }
  class Asks extends Uint8Array<ArrayBuffer> {
    constructor(buffer: ArrayBuffer) {
      for (let page = 1; page < PAGES; page++) bytesOf(views, page);
      super(buffer);
    }
  }
  class Ends extends Uint8Array<ArrayBuffer> {
    constructor(buffer: ArrayBuffer) {
      views.detachAll();
      super(buffer);
    }
  }
  views.get(0, 1, Other, 0);
  expect(bytesOf(views, 0).buffer).toBe(first.buffer);
  const asks = views.get(0, 1, Asks, 0);
  expect(asks.buffer).toBe(first.buffer);
  expect(views.get(0, 1, Asks, 0)).toBe(asks);
  expect(() => views.get(1, 2, Ends, 0)).toThrow(TypeError);
  expect(asks.length).toBe(0);
  expect(views.detachAll()).toBe(true);
});

test("detachAll ends a view's buffer, whatever the view claims", () => {
  const views = new Views(base, () => {});
  const lying = bytesOf(views, 0);
  Object.defineProperty(lying, "buffer", { value: new ArrayBuffer(8) });
  class Head extends Uint8Array<ArrayBuffer> {
    constructor(buffer: ArrayBuffer) {
      super(buffer, 0, 64);
    }
    override get buffer(): ArrayBuffer {
      return new ArrayBuffer(8);
    }
    override get byteLength(): number {
      views.detachAll();
      return 1;
    }
  }
  const head = views.get(1, 2, Head, 0);
  expect(views.get(1, 2, Head, 0)).toBe(head);
  const data = views.get(2, 3, DataView, 0);
  expect(views.get(2, 3, DataView, 0)).toBe(data);
  const bytes = bytesOf(views, 1);
  expect([bytes.length, head.length]).toEqual([PAGE_SIZE, 64]);
  expect(views.detachAll()).toBe(true);
  expect([lying.length, head.length, bytes.length]).toEqual([0, 0, 0]);
  expect(() => data.byteLength).toThrow(TypeError);
  expect(() => bytesOf(views, 3)).toThrow("destroyed during the call");
});

test("get refuses an element size that does not divide a page, and leaves nothing behind", () => {
  const views = new Views(base, () => {});
  class Odd {
    constructor(buffer: ArrayBuffer) {
      throw new RangeError(`cannot be ${buffer.byteLength} bytes`);
    }
  }
  expect(() => views.get(0, 1, Odd, 0)).toThrow("cannot be");
  expect(views.detachAll()).toBe(true);
});

test("a posted view has its own bytes only, and get makes no system call for a kept one", () => {
  using file = MemoryFile.create();
  const ranges = Array.from({ length: 3000 }, () => file.allocate(PAGE_SIZE));
  const [range] = ranges;
  const view = file.view(range!);
  expect(view.buffer.byteLength).toBe(PAGE_SIZE);
  expect(structuredClone(view).buffer.byteLength).toBe(PAGE_SIZE);
  const first = ranges.map((each) => file.view(each));
  const before = { ...syscallCounts };
  expect(ranges.every((each, i) => file.view(each) === first[i])).toBe(true);
  expect({ ...syscallCounts }).toEqual(before);
});

test("sweep counts a dropped and collected buffer as transferred away", async () => {
  let escapes = 0;
  const views = new Views(base, () => escapes++);
  (() => {
    for (let round = 0; round < 50; round++) bytesOf(views, 0, 1 + (round % 2));
  })();
  expect(escapes).toBe(0);
  await Bun.sleep(1);
  Bun.gc(true);
  expect(views.detachAll()).toBe(true);
  expect(escapes).toBeGreaterThan(0);
});

test("detachAll leaves a pinned buffer without a copy, and ends it after the I/O", async () => {
  const directory = mkdtempSync(join(tmpdir(), "pgalloc-views-"));
  try {
    const path = join(directory, "fifo");
    expect(Bun.spawnSync(["mkfifo", path]).exitCode).toBe(0);
    const fd = openSync(path, constants.O_RDWR);
    const file = MemoryFile.create({ name: "pinned" });
    const view = file.view(file.allocate(256 * 2 ** 20)).fill(3);
    const reading = new Promise((resolve) => read(fd, view, 0, 4096, null, resolve));
    await Bun.sleep(20);
    const before = process.memoryUsage.rss();
    file.destroy();
    await Bun.sleep(100);
    expect(process.memoryUsage.rss() - before).toBeLessThan(64 * 2 ** 20);
    expect(view.length).toBe(256 * 2 ** 20);
    writeSync(fd, new Uint8Array(4096).fill(9));
    await reading;
    for (let i = 0; i < 200 && view.length > 0; i++) await Bun.sleep(5);
    expect(view.length).toBe(0);
    closeSync(fd);
  } finally {
    rmSync(directory, { recursive: true });
  }
});
