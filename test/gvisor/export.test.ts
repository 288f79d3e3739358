/**
 * MemoryFiles written in gVisor's format and read back: a program observes the same file.
 * test/gvisor/with-gvisor.ts checks the same files with gVisor itself, if Go is installed.
 */
import { afterAll, describe, expect, test } from "bun:test";
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { exportTo, importFrom } from "../../src/gvisor/index.ts";
import { imageToMetadata } from "../../src/gvisor/compose.ts";
import { CHUNK_PAGES, type MemoryFileImage, RunState } from "../../src/gvisor/image.ts";
import { encodeMetadata } from "../../src/gvisor/metadata.ts";
import { withLength } from "../../src/gvisor/stream.ts";
import {
  CheckpointBusyError,
  DestroyedError,
  FileRange,
  HUGE_PAGE_SIZE,
  MemoryFile,
  PAGE_SIZE,
} from "../../src/index.ts";
import {
  checkContents,
  checkDrop,
  checkRanges,
  comparableText,
  type Expected,
  stampPage,
} from "../support/expected.ts";
import { randomFile, type Shape } from "../support/random-file.ts";
import { writeInlineForm } from "./support.ts";

const fixtures = join(import.meta.dir, "../data/gvisor");
const scratch = mkdtempSync(join(tmpdir(), "pgalloc-export-"));
afterAll(() => rmSync(scratch, { recursive: true }));

let directories = 0;
const newDirectory = () => join(scratch, `${directories++}`);
const contentsOf = (directory: string, name: string) => readFileSync(join(directory, name));

describe("exportTo writes random files that importFrom restores, in both forms", () => {
  const seeds: [Shape, number][] = [
    ["empty", 1],
    ...[1, 2, 3].flatMap((seed): [Shape, number][] => [
      ["small", seed],
      ["huge", seed],
      ["mixed", seed],
    ]),
    ["many", 1],
  ];
  test.each(seeds)("%s, seed %d", async (shape, seed) => {
    const { file, expected } = await randomFile(seed, shape);
    const directory = newDirectory();
    const report = await exportTo(file, directory);
    expect(report.pagesBytes).toBe(expected.filled.length * PAGE_SIZE);
    expect(report.usedBytes).toBe(file.allocatedBytes);
    const text = comparableText(file);
    checkContents(file, expected);
    file.destroy();

    const inline = newDirectory();
    writeInlineForm(directory, inline);
    for (const [form, background] of [
      [directory, false],
      [directory, true],
      [inline, false],
      [inline, true],
    ] as const) {
      using back = await importFrom(form, { background, expectHugepages: true });
      expect(comparableText(back)).toBe(text);
      checkRanges(back, expected);
      await back.awaitLoad();
      checkContents(back, expected);
      if (background) await checkDrop(back, expected);
    }
  });
});

describe.each(["small", "huge", "inline"])("gVisor's own file %s, exported again", (name) => {
  const expected = JSON.parse(
    readFileSync(join(fixtures, name, "expected.json"), "utf8"),
  ) as Expected;

  test("is the same, byte by byte, except for the order of gVisor's maps", async () => {
    using file = await importFrom(join(fixtures, name), { background: true });
    const directory = newDirectory();
    await exportTo(file, directory);
    const [source, written] = [
      join(fixtures, name),
      name === "inline" ? newDirectory() : directory,
    ];
    if (name === "inline") writeInlineForm(directory, written);
    else expect(contentsOf(written, "pages.img")).toEqual(contentsOf(source, "pages.img"));
    // Go writes the map of sub-released pages in random order: the length is the same, and so are
    // the values once it is read.
    const [a, b] = [contentsOf(source, "pages_meta.img"), contentsOf(written, "pages_meta.img")];
    if (name === "huge") expect(b.byteLength).toBe(a.byteLength);
    else expect(b).toEqual(a);
    using back = await importFrom(written);
    expect(back.dump()).toBe(file.dump());
    checkContents(back, expected);
  });
});

test("exportTo writes pending waste and sub-released pages as released", async () => {
  using file = MemoryFile.create({ expectHugepages: true });
  const small = file.allocate(8 * PAGE_SIZE, { mode: "commit" });
  const huge = file.allocate(2 * HUGE_PAGE_SIZE, { huge: true });
  file.view(huge).fill(1);
  file.decRef({ start: small.start + PAGE_SIZE, end: small.end });
  file.decRef({ start: huge.start + PAGE_SIZE, end: huge.end });
  expect(file.dump()).toContain("waste");
  const directory = newDirectory();
  const report = await exportTo(file, directory);
  expect(report.pagesBytes).toBe(PAGE_SIZE);
  await file.released();
  using back = await importFrom(directory);
  expect(comparableText(back)).toBe(comparableText(file));
  back.decRef({ start: huge.start, end: huge.start + PAGE_SIZE });
  await back.released();
  expect(back.dump()).toContain(`[${huge.start}, ${huge.start + 2 ** 30}) huge free`);
});

test("importFrom releases waste, and does not load its contents", async () => {
  const column = (values: number[]) => Uint32Array.from(values);
  // Pages 0-9 used, 10-19 waste with contents, 20-29 used; of a huge page the first half used, the
  // rest waste.
  const hugeFirst = CHUNK_PAGES;
  const image: MemoryFileImage = {
    chunkHuge: Uint8Array.of(0, 1),
    runs: {
      start: column([0, 10, 20, hugeFirst, hugeFirst + 256]),
      length: column([10, 10, 10, 256, 256]),
      state: Uint8Array.of(
        RunState.used,
        RunState.waste,
        RunState.used,
        RunState.used,
        RunState.waste,
      ),
      refs: column([1, 0, 2, 1, 0]),
      kind: Uint8Array.of(1, 0, 2, 1, 0),
      group: column([0, 7, 3, 0, 9]),
    },
    extents: {
      start: column([5, hugeFirst + 250]),
      length: column([20, 12]),
      fileOffset: new Float64Array(2),
    },
  };
  const directory = newDirectory();
  mkdirSync(directory);
  writeFileSync(
    join(directory, "pages_meta.img"),
    withLength(encodeMetadata(imageToMetadata(image))),
  );
  const pages = new Uint8Array(32 * PAGE_SIZE);
  for (let i = 0; i < 32; i++)
    stampPage(pages.subarray(i * PAGE_SIZE, (i + 1) * PAGE_SIZE), 100 + i);
  writeFileSync(join(directory, "pages.img"), pages);
  const page = (index: number) => index * PAGE_SIZE;
  const expected: Expected = {
    totalSize: 2 * page(CHUNK_PAGES),
    live: [
      { start: 0, end: page(10), refs: 1, kind: 1, group: 0, huge: false },
      { start: page(20), end: page(30), refs: 2, kind: 2, group: 3, huge: false },
      {
        start: page(hugeFirst),
        end: page(hugeFirst + 256),
        refs: 1,
        kind: 1,
        group: 0,
        huge: true,
      },
    ],
    filled: [5, 6, 7, 8, 9, 20, 21, 22, 23, 24]
      .map((at) => ({ offset: page(at), index: 100 + at - 5 }))
      .concat(
        [0, 1, 2, 3, 4, 5].map((i) => ({ offset: page(hugeFirst + 250 + i), index: 120 + i })),
      ),
  };
  for (const background of [false, true]) {
    using file = await importFrom(directory, { background });
    await file.awaitLoad();
    expect(file.loadStats().totalBytes).toBe(16 * PAGE_SIZE);
    await file.released();
    expect(file.totalUsageBytes).toBe(16 * PAGE_SIZE);
    expect(file.dump()).not.toContain("waste");
    expect(file.dump()).toContain(
      `[${page(hugeFirst + 256)}, ${page(hugeFirst + 512)}) huge sub-released`,
    );
    checkRanges(file, expected);
    checkContents(file, expected);
    await checkDrop(file, expected);
  }
});

describe("kinds that gVisor does not have", () => {
  test("are an error that names foreignKind, and the directory is unchanged", async () => {
    using file = MemoryFile.create();
    file.allocate(PAGE_SIZE, { kind: 6 });
    const directory = newDirectory();
    await expect(exportTo(file, directory)).rejects.toThrow("foreignKind");
    expect(() => readdirSync(directory)).toThrow("ENOENT");
    for (const foreignKind of [-1, 6, 1.5]) {
      await expect(exportTo(file, directory, { foreignKind })).rejects.toBeInstanceOf(RangeError);
    }
    await exportTo(file, directory, { foreignKind: 4 });
    using back = await importFrom(directory);
    expect(back.dump()).toContain("refs=1 kind=4 group=0");
  });

  test("cause no error once their pages are free", async () => {
    using file = MemoryFile.create();
    file.decRef(file.allocate(PAGE_SIZE, { kind: 255 }));
    await exportTo(file, newDirectory());
  });
});

test("exportTo writes files for the owner only, and follows no symbolic link", async () => {
  using file = MemoryFile.create();
  file.view(file.allocate(PAGE_SIZE)).fill(1);
  const directory = newDirectory();
  mkdirSync(directory);
  const victim = join(scratch, "victim");
  writeFileSync(victim, "untouched");
  for (const name of ["pages_meta.img", "pages.img"]) {
    Bun.spawnSync(["ln", "-s", victim, join(directory, name)]);
  }
  await exportTo(file, directory);
  expect(readdirSync(directory).sort()).toEqual(["pages.img", "pages_meta.img"]);
  for (const name of readdirSync(directory))
    expect(statSync(join(directory, name)).mode & 0o777).toBe(0o600);
  expect(readFileSync(victim, "utf8")).toBe("untouched");
});

test("exportTo writes the most references that a page can have, and refuses one more", async () => {
  const directory = newDirectory();
  mkdirSync(directory);
  const write = (refs: number) => {
    const column = Uint32Array.of(0);
    const runs = {
      start: column,
      length: Uint32Array.of(1),
      state: Uint8Array.of(RunState.used),
      refs: Uint32Array.of(refs),
    };
    const image = {
      chunkHuge: Uint8Array.of(0),
      runs: { ...runs, kind: Uint8Array.of(5), group: Uint32Array.of(2 ** 32 - 1) },
      extents: { start: column.slice(1), length: column.slice(1) },
    };
    writeFileSync(
      join(directory, "pages_meta.img"),
      withLength(encodeMetadata(imageToMetadata(image))),
    );
    writeFileSync(join(directory, "pages.img"), "");
  };
  write(2 ** 31 - 1);
  using file = await importFrom(directory);
  expect(file.dump()).toContain("refs=2147483647 kind=5 group=4294967295");
  expect(() => file.incRef({ start: 0, end: PAGE_SIZE })).toThrow(RangeError);
  const metadata = contentsOf(directory, "pages_meta.img");
  await exportTo(file, directory);
  expect(contentsOf(directory, "pages_meta.img")).toEqual(metadata);
  write(2 ** 31);
  await expect(importFrom(directory)).rejects.toThrow("at most 2147483647 are supported");
});

describe("an export that fails", () => {
  const make = () => {
    const file = MemoryFile.create();
    const range = file.allocate(64 * PAGE_SIZE);
    file.view(range).fill(7);
    return file;
  };

  test("leaves no trace when aborted, or when its progress callback throws", async () => {
    using file = make();
    const directory = newDirectory();
    const reason = new Error("enough");
    await expect(exportTo(file, directory, { signal: AbortSignal.abort(reason) })).rejects.toBe(
      reason,
    );
    const controller = new AbortController();
    const ended = exportTo(file, directory, { signal: controller.signal });
    controller.abort(reason);
    await expect(ended).rejects.toBe(reason);
    const onProgress = () => {
      throw reason;
    };
    await expect(exportTo(file, directory, { onProgress })).rejects.toBe(reason);
    expect(readdirSync(directory)).toEqual([]);
  });

  test("refuses a second export into the same directory, and survives destroy()", async () => {
    const file = make();
    const directory = newDirectory();
    const first = exportTo(file, directory);
    await expect(exportTo(file, directory)).rejects.toBeInstanceOf(CheckpointBusyError);
    file.destroy();
    await first;
    await expect(exportTo(file, directory)).rejects.toBeInstanceOf(DestroyedError);
    using back = await importFrom(directory);
    expect(back.view(new FileRange(0, PAGE_SIZE))[9]).toBe(7);
  });
});

test("exportTo never replaces pages that have no metadata", async () => {
  using file = MemoryFile.create();
  file.allocate(PAGE_SIZE);
  const directory = newDirectory();
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, "pages.img"), "foreign");
  await expect(exportTo(file, directory)).rejects.toMatchObject({ code: "ERR_NOT_CHECKPOINT" });
  expect(readdirSync(directory)).toEqual(["pages.img"]);
  writeFileSync(join(directory, "pages.img"), "");
  await exportTo(file, directory);
});
