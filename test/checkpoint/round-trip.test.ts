/**
 * A load returns what was saved: every run and every live page, of files as programs leave them.
 */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { closeSync, mkdtempSync, openSync, readSync, rmSync, statSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { closeContents, openCheckpoint } from "../../src/checkpoint/directory.ts";
import {
  CorruptCheckpointError,
  type LoadQueue,
  loadAll,
  MemoryFile,
  type MemoryFileOptions,
  PAGE_SIZE,
  saveAll,
} from "../../src/index.ts";
import { checkContents, checkRanges } from "../support/expected.ts";
import { randomFile, type Shape } from "../support/random-file.ts";
import { checkNumbered, contentsOf, numberedFile } from "./support/contents.ts";
import { onlyPageFile } from "./support/page-files.ts";

let directory: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "pgalloc-round-trip-"));
});
afterEach(() => rmSync(directory, { recursive: true }));

/** Committed, or mapped from a page file where the suite runs over mapped memory. */
function memoryBytes(file: MemoryFile): number {
  return file.totalUsageBytes + file.metrics().memory.mappedBytes;
}

const shapes: readonly Shape[] = ["empty", "small", "huge", "mixed"];
const queues: readonly LoadQueue[] = ["auto", "workers", "inline"];

for (const shape of shapes) {
  test(`loadFrom returns random files, ${shape}, through two checkpoints`, async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer(),
        fc.boolean(),
        fc.constantFrom(...queues),
        fc.option(fc.uint8Array({ maxLength: 5000 })),
        fc.boolean(),
        async (seed, background, queue, userData, mapped) => {
          const { file, expected } = await randomFile(seed, shape);
          const before = contentsOf(file);
          const report = await file.saveTo(directory, userData === null ? {} : { userData });
          // A save changes nothing and commits nothing.
          expect(contentsOf(file)).toEqual(before);
          expect(report.usedBytes).toBe(file.allocatedBytes);
          expect(report.pagesBytes).toBe(before.pages.size * PAGE_SIZE);
          file.destroy();

          using back = await MemoryFile.loadFrom(directory, { background, queue, mapped });
          expect(back.userData).toEqual(userData);
          await back.awaitLoad();
          checkRanges(back, expected);
          checkContents(back, expected);
          expect(contentsOf(back)).toEqual(before);
          // A restored file is saved like a new one.
          await back.saveTo(directory);
          using again = await MemoryFile.loadFrom(directory);
          expect(contentsOf(again)).toEqual(before);
          expect(again.userData).toBeNull();
        },
      ),
      { numRuns: shape === "mixed" ? 4 : 8 },
    );
  });
}

test("saveTo reads no page that is not committed", async () => {
  using file = MemoryFile.create();
  const range = file.allocate(2 ** 36);
  file.view({ start: range.start + 2 ** 35, end: range.start + 2 ** 35 + PAGE_SIZE }).fill(7);
  const used = file.totalUsageBytes;
  const report = await file.saveTo(directory);
  expect(report).toMatchObject({
    usedBytes: 2 ** 36,
    pagesBytes: PAGE_SIZE,
    zeroBytes: 0,
    extents: 1,
  });
  expect(file.totalUsageBytes).toBe(used);
  using back = await MemoryFile.loadFrom(directory);
  expect(
    back.view({ start: range.start + 2 ** 35, end: range.start + 2 ** 35 + PAGE_SIZE })[5],
  ).toBe(7);
  expect(memoryBytes(back)).toBe(PAGE_SIZE);
});

test("saveTo reports committed zero pages, and does not store them", async () => {
  using file = MemoryFile.create();
  const range = file.allocate(100 * PAGE_SIZE, { mode: "commit" });
  for (const page of [0, 50, 51, 99])
    file.view({ start: page * PAGE_SIZE, end: (page + 1) * PAGE_SIZE })[PAGE_SIZE - 1] = 1;
  const before = contentsOf(file);
  for (const excludeCommittedZeroPages of [true, false]) {
    const report = await file.saveTo(directory, { excludeCommittedZeroPages });
    expect(report).toMatchObject({
      usedBytes: range.length,
      pagesBytes: 4 * PAGE_SIZE,
      zeroBytes: 96 * PAGE_SIZE,
      extents: 3,
    });
    using back = await MemoryFile.loadFrom(directory);
    expect(memoryBytes(back)).toBe(4 * PAGE_SIZE);
    // This reads every page, which commits it.
    expect(contentsOf(back)).toEqual(before);
  }
});

const backings: Record<string, (name: string) => MemoryFileOptions> = {
  memory: () => ({}),
  disk: (name) => ({ path: join(directory, name) }),
};
for (const [from, to] of [
  ["disk", "memory"],
  ["memory", "disk"],
  ["disk", "disk"],
] as const) {
  test(`loadFrom restores files backed by ${from} into ${to}`, async () => {
    using file = MemoryFile.create(backings[from]!("one"));
    const range = file.allocate(300 * PAGE_SIZE);
    for (let page = 0; page < 300; page += 3) {
      file
        .view(
          { start: range.start + page * PAGE_SIZE, end: range.start + (page + 1) * PAGE_SIZE },
          Uint32Array,
        )
        .fill(page + 1);
    }
    file.incRef({ start: range.start, end: range.start + 30 * PAGE_SIZE });
    const before = contentsOf(file);
    expect(await file.saveTo(`${directory}/checkpoint`)).toMatchObject({
      pagesBytes: 100 * PAGE_SIZE,
      extents: 100,
    });
    using back = await MemoryFile.loadFrom(`${directory}/checkpoint`, backings[to]!("two"));
    expect(contentsOf(back)).toEqual(before);
  });
}

test("saveTo makes files for their owner only, with contents at page boundaries", async () => {
  using file = numberedFile(700, 1);
  for (const page of [3, 100, 513])
    file.decommit({ start: page * PAGE_SIZE, end: (page + 1) * PAGE_SIZE });
  await file.saveTo(directory);
  for (const path of [join(directory, "meta"), onlyPageFile(directory)])
    expect(statSync(path).mode & 0o777).toBe(0o600);
  const { manifest, contents } = openCheckpoint(directory);
  closeContents(contents);
  const { start, length } = manifest.files[0]!.pageMap.extents;
  expect([...start]).toEqual([0, 4, 101, 512, 514]);
  const fd = openSync(onlyPageFile(directory), "r");
  const word = new Uint32Array(1);
  let at = 0;
  for (const [extent, first] of start.entries()) {
    for (let page = first; page < first + length[extent]!; page++, at++) {
      readSync(fd, word, 0, 4, at * PAGE_SIZE);
      expect(word[0]).toBe(page + 1);
    }
  }
  closeSync(fd);
  expect(statSync(onlyPageFile(directory)).size).toBe((at + 1) * PAGE_SIZE);
});

test("awaitLoad names the page of a changed byte, and loads the others", async () => {
  using file = numberedFile(2000, 1);
  await file.saveTo(directory);
  await fc.assert(
    fc.asyncProperty(
      fc.nat({ max: 2000 * PAGE_SIZE - 1 }),
      fc.integer({ min: 1, max: 255 }),
      async (offset, flip) => {
        const fd = openSync(onlyPageFile(directory), "r+");
        const byte = new Uint8Array(1);
        readSync(fd, byte, 0, 1, offset);
        writeSync(fd, new Uint8Array([byte[0]! ^ flip]), 0, 1, offset);
        using back = await MemoryFile.loadFrom(directory, { background: true });
        const page = Math.floor(offset / PAGE_SIZE);
        const bad = { start: page * PAGE_SIZE, end: (page + 1) * PAGE_SIZE };
        const failure = await back.awaitLoad(bad).catch((error) => error);
        expect(failure).toBeInstanceOf(CorruptCheckpointError);
        expect(failure).toMatchObject({ section: "pages", offset: page * PAGE_SIZE });
        expect(failure.message).toContain(`memory offset ${page * PAGE_SIZE}`);
        expect(() => back.view(bad)).toThrow("could not be loaded: Checksum does not match");
        // Its unit of 2 MiB was read at once and failed as one. The others have their contents.
        const unit = Math.floor(page / 512);
        const other = unit === 0 ? 1024 : 0;
        await back.awaitLoad({ start: other * PAGE_SIZE, end: (other + 512) * PAGE_SIZE });
        checkNumbered(back, 1, other, other + 512);
        writeSync(fd, byte, 0, 1, offset);
        closeSync(fd);
      },
    ),
    { numRuns: 15 },
  );
});

test("saveTo copies user data when it is called", async () => {
  using file = numberedFile(10, 1);
  const view = file.view({ start: 0, end: PAGE_SIZE });
  const kept = view.slice();
  for (const change of [
    (bytes: Uint8Array<ArrayBuffer>) => void bytes.fill(9),
    (bytes: Uint8Array<ArrayBuffer>) => void bytes.buffer.transfer(),
  ]) {
    const given = kept.slice();
    const save = file.saveTo(directory, { userData: given });
    change(given);
    await save;
    using back = await MemoryFile.loadFrom(directory);
    expect(back.userData).toEqual(kept);
    const one = kept.slice();
    const whole = kept.slice();
    const saveOfAll = saveAll(
      directory,
      { file },
      { userData: whole, fileUserData: { file: one } },
    );
    for (const bytes of [one, whole]) change(bytes);
    await saveOfAll;
    using all = await loadAll(directory);
    expect([all.userData, all.get("file")!.userData]).toEqual([kept, kept]);
  }
});
