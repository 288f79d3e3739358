/** Bad input: a typed error that names the value, and an unchanged file. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import {
  CHUNK_SIZE,
  DestroyedError,
  type FileRange,
  HUGE_PAGE_SIZE,
  loadAll,
  MemoryFile,
  OutOfMemoryError,
  PAGE_SIZE,
} from "../../src/index.ts";

let file: MemoryFile;
let used: FileRange;

beforeEach(() => {
  file = MemoryFile.create({ limitBytes: 64 * PAGE_SIZE, expectHugepages: true });
  used = file.allocate(4 * PAGE_SIZE);
});
afterEach(() => file.destroy());

function unchanged(
  call: () => unknown,
  error: new (...args: never[]) => Error,
  message: string,
): void {
  const before = file.dump();
  expect(call).toThrow(error);
  expect(call).toThrow(message);
  expect(file.dump()).toBe(before);
}

test("view makes typed arrays and DataViews, and refuses other types", () => {
  for (const type of [Array, Date, ArrayBuffer, Object]) {
    // A new view, and a kept one.
    for (let i = 0; i < 2; i++) {
      expect(() => file.view(used, type as unknown as Uint8ArrayConstructor)).toThrow(
        `constructor, got ${type.name}`,
      );
      expect(file.view(used).length).toBe(4 * PAGE_SIZE);
    }
  }
});

test("view of a type that destroys the file makes and keeps nothing", () => {
  let kept: ArrayBuffer | undefined;
  class Destroys extends Uint8Array<ArrayBuffer> {
    constructor(buffer: ArrayBuffer) {
      kept = buffer;
      file.destroy();
      super(buffer);
    }
  }
  expect(() => file.view(used, Destroys)).toThrow(TypeError);
  expect(kept?.detached).toBe(true);
});

describe("allocate", () => {
  for (const length of [
    0,
    -PAGE_SIZE,
    1,
    PAGE_SIZE + 1,
    1.5,
    Number.NaN,
    Number.POSITIVE_INFINITY,
    2 ** 53,
  ]) {
    test(`refuses length ${length}`, () =>
      unchanged(() => file.allocate(length), RangeError, `got ${length}`));
  }
  test("refuses lengths that are not numbers", () => {
    unchanged(() => file.allocate("4096" as never), TypeError, 'got "4096" (a string)');
    unchanged(() => file.allocate(4096n as never), TypeError, "got 4096n (a bigint)");
  });
  test("refuses a huge allocation that is not a multiple of a huge page", () =>
    unchanged(
      () => file.allocate(PAGE_SIZE, { huge: true }),
      RangeError,
      `multiple of ${HUGE_PAGE_SIZE}`,
    ));
  test("refuses options out of range", () => {
    unchanged(() => file.allocate(PAGE_SIZE, { kind: 256 }), RangeError, "kind");
    unchanged(() => file.allocate(PAGE_SIZE, { kind: 1.5 }), RangeError, "got 1.5");
    unchanged(() => file.allocate(PAGE_SIZE, { group: -1 }), RangeError, "got -1");
    unchanged(() => file.allocate(PAGE_SIZE, { group: 2 ** 32 }), RangeError, "group");
    unchanged(() => file.allocate(PAGE_SIZE, { mode: "later" as never }), TypeError, 'got "later"');
    unchanged(() => file.allocate(PAGE_SIZE, { direction: "left" as never }), TypeError, '"left"');
  });
  test("refuses more than limitBytes, and releases waste before it does", () => {
    unchanged(() => file.allocate(61 * PAGE_SIZE), OutOfMemoryError, `${61 * PAGE_SIZE} bytes`);
    file.allocate(60 * PAGE_SIZE);
    unchanged(() => file.allocate(PAGE_SIZE), OutOfMemoryError, "limitBytes");
    file.decRef(used);
    expect(file.allocate(4 * PAGE_SIZE).length).toBe(4 * PAGE_SIZE);
  });
  test("refuses more than the address space", () => {
    using big = MemoryFile.create();
    expect(() => big.allocate(2 ** 48)).toThrow(OutOfMemoryError);
    expect(big.totalSizeBytes).toBe(0);
  });
});

describe("ranges", () => {
  const calls = [
    "incRef",
    "decRef",
    "hasUniqueRef",
    "firstSharedRange",
    "decommit",
    "view",
    "views",
    "isLoaded",
  ] as const;
  const bad: [string, { start: number; end: number }, string][] = [
    ["empty", { start: 0, end: 0 }, "[0, 0)"],
    ["reversed", { start: PAGE_SIZE, end: 0 }, "[4096, 0)"],
    ["unaligned", { start: 1, end: PAGE_SIZE }, "[1, 4096)"],
    ["negative", { start: -PAGE_SIZE, end: PAGE_SIZE }, "-4096"],
    ["NaN", { start: Number.NaN, end: PAGE_SIZE }, "NaN"],
    ["infinite", { start: 0, end: Number.POSITIVE_INFINITY }, "Infinity"],
    ["beyond the file", { start: 0, end: 2 * CHUNK_SIZE }, `${CHUNK_SIZE} bytes`],
    ["beyond 2^53", { start: 0, end: 2 ** 60 }, "bytes"],
  ];
  for (const call of calls) {
    for (const [what, range, message] of bad)
      test(`${call} refuses ${what}`, () =>
        unchanged(() => file[call](range), RangeError, message));
    test(`${call} refuses a value that is not a range`, () =>
      unchanged(() => file[call](null as never), TypeError, "got null"));
    if (call === "isLoaded") continue;
    test(`${call} refuses pages without references`, () =>
      unchanged(
        () => file[call]({ start: 0, end: 8 * PAGE_SIZE }),
        RangeError,
        `[${4 * PAGE_SIZE}, ${8 * PAGE_SIZE}) has none`,
      ));
  }
  test("view refuses more than 4 GiB, and names views()", () => {
    using big = MemoryFile.create();
    const range = big.allocate(5 * CHUNK_SIZE);
    expect(() => big.view(range)).toThrow("use views()");
    expect(big.views(range).map((view) => view.byteLength)).toEqual(new Array(5).fill(CHUNK_SIZE));
    expect(
      big.view({ start: CHUNK_SIZE / 2, end: CHUNK_SIZE / 2 + 4 * CHUNK_SIZE }).byteLength,
    ).toBe(4 * CHUNK_SIZE);
  });
});

describe("fill", () => {
  test("is called until the range is full, and may end early", () => {
    let calls = 0;
    const full = file.allocate(2 * PAGE_SIZE, {
      fill: (destination) => {
        calls++;
        destination.fill(7, 0, 1000);
        return Math.min(1000, destination.length);
      },
    });
    expect(calls).toBe(Math.ceil((2 * PAGE_SIZE) / 1000));
    expect(file.view(full).every((byte) => byte === 7)).toBe(true);
    let left = PAGE_SIZE + 10;
    const short = file.allocate(4 * PAGE_SIZE, {
      fill: (destination) => {
        const count = Math.min(left, destination.length);
        left -= count;
        return count;
      },
    });
    expect(short.length).toBe(PAGE_SIZE);
    expect(file.allocatedBytes).toBe(7 * PAGE_SIZE);
  });
  test("leaves nothing behind if it throws, or returns a count out of range", async () => {
    const failing: [(destination: Uint8Array) => number, string][] = [
      [
        () => {
          throw new Error("no data");
        },
        "no data",
      ],
      [(destination) => destination.length + 1, "fill's result"],
      [() => -1, "got -1"],
      [() => Number.NaN, "got NaN"],
    ];
    for (const [fill, message] of failing)
      expect(() => file.allocate(PAGE_SIZE, { fill })).toThrow(message);
    await file.released();
    expect(file.allocatedBytes).toBe(4 * PAGE_SIZE);
  });
  test("may destroy the file", () => {
    const destroyAndAnswer = () => {
      file.destroy();
      return 1;
    };
    expect(() => file.allocate(PAGE_SIZE, { fill: destroyAndAnswer })).toThrow(DestroyedError);
  });
});

test("create refuses bad options", () => {
  expect(() => MemoryFile.create({ limitBytes: 1 })).toThrow(RangeError);
  expect(() => MemoryFile.create({ limitBytes: 2 ** 60 })).toThrow(RangeError);
  expect(() => MemoryFile.create({ name: 5 as never })).toThrow(TypeError);
  expect(() => MemoryFile.create({ name: "a\0b" })).toThrow(TypeError);
  expect(() => MemoryFile.create({ path: "/nonexistent/directory/file" })).toThrow("ENOENT");
});

test("loads and saves refuse bad paths, signals and functions, and name them", async () => {
  using file = MemoryFile.create();
  for (const path of [undefined, null, 5, [], {}, Symbol("x")] as never[]) {
    const message = "Expected directory to be a string, got ";
    await expect(file.saveTo(path)).rejects.toThrow(message);
    for (const load of [() => MemoryFile.loadFrom(path), () => loadAll(path)]) {
      await expect(load()).rejects.toBeInstanceOf(TypeError);
      await expect(load()).rejects.toThrow(message);
    }
  }
  for (const options of [{ signal: 5 }, { onProgress: 5 }] as never[]) {
    const message = /^Expected (signal|onProgress) to be an? \w+, got 5$/;
    await expect(file.saveTo("/nonexistent/directory", options)).rejects.toThrow(message);
    await expect(MemoryFile.loadFrom("/nonexistent/directory", options)).rejects.toThrow(message);
  }
});
