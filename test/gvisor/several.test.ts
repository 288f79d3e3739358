/**
 * Several MemoryFiles in one checkpoint, as gVisor's kernel writes it: each is found by its
 * resource id. with-gvisor.ts checks these checkpoints with gVisor itself.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { exportAll, exportTo, importAll, importFrom } from "../../src/gvisor/index.ts";
import {
  encodeOwners,
  formatResourceId,
  parseResourceId,
  readOwners,
} from "../../src/gvisor/owners.ts";
import { memorySource } from "../../src/gvisor/stream.ts";
import {
  CorruptCheckpointError,
  DestroyedError,
  MemoryFile,
  OutOfMemoryError,
  PAGE_SIZE,
} from "../../src/index.ts";
import { checkContents, checkDrop, checkRanges, type Expected } from "../support/expected.ts";
import { randomFile, type Shape } from "../support/random-file.ts";

const scratch = mkdtempSync(join(tmpdir(), "pgalloc-several-"));
afterAll(() => rmSync(scratch, { recursive: true }));
let directories = 0;
const newDirectory = () => join(scratch, `${directories++}`);

async function makeFiles(shapes: Record<string, Shape>) {
  const files = new Map<string, MemoryFile>();
  const expected = new Map<string, Expected>();
  for (const [id, shape] of Object.entries(shapes)) {
    const made = await randomFile(files.size + 1, shape);
    files.set(id, made.file);
    expected.set(id, made.expected);
  }
  const destroy = () => {
    for (const file of files.values()) file.destroy();
  };
  return { files, expected, destroy };
}

describe("importAll returns files under their ids, in order", () => {
  test.each([
    [
      "a main file and others",
      { "": "small", "c1:/tmp": "huge", "c1:/var/empty": "empty", "/shared": "small" },
    ],
    ["others only", { "c0:/a": "small", "c0:/b": "mixed" }],
    ["the main file only", { "": "mixed" }],
    ["none at all", {}],
  ] as [string, Record<string, Shape>][])("%s", async (_name, shapes) => {
    const { files, expected, destroy } = await makeFiles(shapes);
    const directory = newDirectory();
    const report = await exportAll(directory, files);
    destroy();
    const filled = [...expected.values()].reduce((sum, each) => sum + each.filled.length, 0);
    expect(report.pagesBytes).toBe(filled * PAGE_SIZE);
    for (const background of [false, true]) {
      const back = await importAll(directory, { background });
      const ids = [...expected.keys()];
      expect([...back.keys()]).toEqual(ids.includes("") ? ids : ["", ...ids]);
      // From the last file, which the background pass loads last: awaited pages come first.
      for (const [id, want] of [...expected].reverse()) {
        const file = back.get(id)!;
        await file.awaitLoad();
        checkRanges(file, want);
        checkContents(file, want);
        await checkDrop(file, want);
      }
      if (!expected.has("")) expect(back.get("")!.totalSizeBytes).toBe(0);
      for (const file of back.values()) file.destroy();
    }
  });
});

test("importFrom reads the main file of any checkpoint that exportAll wrote", async () => {
  const { files, expected, destroy } = await makeFiles({ "": "small", "c:/x": "small" });
  const [one, all] = [newDirectory(), newDirectory()];
  await exportTo(files.get("")!, one);
  await exportAll(all, files);
  destroy();
  for (const directory of [one, all]) {
    using file = await importFrom(directory, { background: true });
    await file.awaitLoad();
    checkRanges(file, expected.get("")!);
    checkContents(file, expected.get("")!);
  }
  expect([...(await importAll(one)).keys()]).toEqual([""]);
  // A kernel reads the list of other files even if there are none; MemoryFile.LoadFrom does not.
  using file = await importFrom(one);
  const kernel = newDirectory();
  await exportAll(kernel, { "": file });
  const [alone, listed] = [one, kernel].map((directory) =>
    readFileSync(join(directory, "pages_meta.img")),
  ) as [Buffer, Buffer];
  expect(listed).toEqual(Buffer.concat([alone, encodeOwners([])]));
  using back = (await importAll(kernel)).get("")!;
  checkContents(back, expected.get("")!);
});

test("importAll loads files in order, awaited pages of a later file first", async () => {
  const directory = newDirectory();
  const made = ["c:/first", "c:/second"].map((id, i): [string, MemoryFile] => {
    const file = MemoryFile.create();
    file.view(file.allocate(32 * 2 ** 20)).fill(i + 1);
    return [id, file];
  });
  await exportAll(directory, new Map(made));
  for (const [, file] of made) file.destroy();
  let seenWaiting = 0;
  for (const queue of ["auto", "inline"] as const) {
    using files = await importAll(directory, { background: true, queue });
    const [first, second] = [files.get("c:/first")!, files.get("c:/second")!];
    const page = { start: 2 ** 20, end: 2 ** 20 + PAGE_SIZE };
    await second.awaitLoad(page);
    expect(second.view(page)[0]).toBe(2);
    while (second.isLoading) {
      const { loadedBytes, demandBytes } = second.loadStats();
      // While the first file loads, only awaited pages of the second are loaded.
      if (first.isLoading) {
        expect(loadedBytes).toBe(demandBytes);
        seenWaiting++;
      }
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    expect(first.isLoading).toBe(false);
    expect(second.view({ start: 0, end: 32 * 2 ** 20 }).every((byte) => byte === 2)).toBe(true);
  }
  expect(seenWaiting).toBeGreaterThan(0);
});

test("exportAll writes nothing for bad ids, a destroyed or too large file", async () => {
  using file = MemoryFile.create();
  file.view(file.allocate(16 * PAGE_SIZE)).fill(1);
  const directory = newDirectory();
  for (const id of [":", "c:", ":/x"]) {
    await expect(exportAll(directory, new Map([[id, file]]))).rejects.toThrow(RangeError);
  }
  const gone = MemoryFile.create();
  gone.destroy();
  await expect(
    exportAll(
      directory,
      new Map([
        ["a", file],
        ["b", gone],
      ]),
    ),
  ).rejects.toBeInstanceOf(DestroyedError);
  expect(() => readFileSync(directory)).toThrow("ENOENT");
  await exportAll(
    directory,
    new Map([
      ["a", file],
      ["b", file],
    ]),
  );
  await expect(importAll(directory, { limitBytes: PAGE_SIZE })).rejects.toBeInstanceOf(
    OutOfMemoryError,
  );
});

test("importAll refuses metadata cut off in the owners, or behind its last file", async () => {
  const { files, destroy } = await makeFiles({ "": "empty", "c1:/a": "small", "c2:/b": "empty" });
  const directory = newDirectory();
  await exportAll(directory, files);
  destroy();
  const path = join(directory, "pages_meta.img");
  const metadata = readFileSync(path);
  const list = metadata.indexOf("pkg/sentry/kernel") - 14;
  expect(list).toBeGreaterThan(0);
  for (let cut = list + 1; cut < list + 190; cut++) {
    writeFileSync(path, metadata.subarray(0, cut));
    await expect(importAll(directory)).rejects.toBeInstanceOf(CorruptCheckpointError);
  }
  writeFileSync(path, Buffer.concat([metadata, Buffer.of(0)]));
  await expect(importAll(directory)).rejects.toBeInstanceOf(CorruptCheckpointError);
});

describe("the list of owners", () => {
  const text = fc
    .string({ unit: "grapheme", minLength: 1, maxLength: 40 })
    .filter((s) => s.isWellFormed());
  const container = fc.oneof(fc.constant(""), text);

  test("round-trips, also if it is long", () => {
    const owner = fc.record({ containerName: container, path: text });
    fc.assert(
      fc.property(fc.array(owner, { maxLength: 50 }), fc.nat({ max: 9 }), (owners, before) => {
        const encoded = encodeOwners(owners);
        const bytes = new Uint8Array(before + encoded.byteLength + 3);
        bytes.set(encoded, before);
        expect(readOwners(memorySource(bytes), before)).toEqual({
          owners,
          end: before + encoded.byteLength,
        });
      }),
    );
    const many = Array.from({ length: 20_000 }, (_, i) => ({
      containerName: `container-${i}`,
      path: `/some/path/${i}`,
    }));
    expect(readOwners(memorySource(encodeOwners(many)), 0).owners).toEqual(many);
  });

  test("is refused if a changed byte makes it a list of other types", () => {
    const encoded = encodeOwners([{ containerName: "c", path: "/p" }]);
    let refused = 0;
    for (let i = 0; i < encoded.byteLength; i++) {
      const damaged = encoded.slice();
      damaged[i]! ^= 0x41;
      try {
        readOwners(memorySource(damaged), 0);
      } catch (error) {
        expect(error).toBeInstanceOf(CorruptCheckpointError);
        refused++;
      }
    }
    // All bytes except the letters of the two texts.
    expect(refused).toBe(encoded.byteLength - 3);
  });

  test("formats and parses ids", () => {
    fc.assert(
      fc.property(
        container.filter((name) => !name.includes(":")),
        text,
        (containerName, path) => {
          const id = formatResourceId({ containerName, path });
          if (containerName === "" && path.includes(":"))
            expect(() => parseResourceId(path)).not.toThrow(TypeError);
          else expect(parseResourceId(id)).toEqual({ containerName, path });
        },
      ),
    );
    expect(parseResourceId("c1:/a:b")).toEqual({ containerName: "c1", path: "/a:b" });
    expect(parseResourceId("/a")).toEqual({ containerName: "", path: "/a" });
    expect(parseResourceId(":/a:b")).toEqual({ containerName: "", path: "/a:b" });
  });
});
