/**
 * The writer and the reader check the same limits from one table: a load accepts whatever a save
 * accepts.
 */
import { describe, expect, test } from "bun:test";
import { decodeManifest } from "../../src/checkpoint/decode.ts";
import { encodeManifest } from "../../src/checkpoint/encode.ts";
import type { Manifest, SavedFile } from "../../src/checkpoint/format.ts";
import { encodeName, LIMITS } from "../../src/checkpoint/limits.ts";
import { MemoryFile, PAGE_SIZE, saveAll } from "../../src/index.ts";
import { withDirectory } from "./support/directory.ts";

const NO_WORDS = new Uint32Array(0);
const NO_FLOATS = new Float64Array(0);

function emptyFile(name: string, userDataBytes = 0): SavedFile {
  return {
    name,
    chunkHuge: new Uint8Array(0),
    runs: {
      start: NO_WORDS,
      length: NO_WORDS,
      state: NO_WORDS,
      refs: NO_WORDS,
      kind: NO_WORDS,
      group: NO_WORDS,
    },
    pageMap: {
      extents: { start: NO_WORDS, length: NO_WORDS, frame: NO_WORDS, framePage: NO_WORDS },
      frames: {
        content: NO_WORDS,
        codec: NO_WORDS,
        offset: NO_FLOATS,
        storedBytes: NO_FLOATS,
        pages: NO_WORDS,
      },
    },
    crcs: NO_WORDS,
    hashes: new BigUint64Array(0),
    userData: userDataBytes === 0 ? null : new Uint8Array(userDataBytes),
  };
}

function manifestOf(change: Partial<Manifest<SavedFile>>): Manifest<SavedFile> {
  const files = [emptyFile("main")];
  return { id: 1n, hashSeed: 2, pageFiles: [], files, userData: null, ...change };
}

/** "ok", or the name of the error with which a side refuses it. */
function sides(manifest: Manifest<SavedFile>): { writer: string; reader: string } {
  try {
    const { parts, lengthBytes } = encodeManifest(manifest);
    try {
      decodeManifest(parts[0], lengthBytes, "meta");
      return { writer: "ok", reader: "ok" };
    } catch (error) {
      return { writer: "ok", reader: (error as Error).name };
    }
  } catch (error) {
    return { writer: (error as Error).name, reader: "not asked" };
  }
}

const files = (count: number) => Array.from({ length: count }, (_, i) => emptyFile(`file ${i}`));
const pageFiles = (count: number) =>
  Array.from({ length: count }, (_, i) => ({ id: BigInt(i), sizeBytes: PAGE_SIZE }));

describe("a manifest at its limit is written and read, and one beyond it is not written", () => {
  const makers: [string, (excess: number) => Manifest<SavedFile>][] = [
    ["files", (excess) => manifestOf({ files: files(LIMITS.files + excess) })],
    ["pageFiles", (excess) => manifestOf({ pageFiles: pageFiles(LIMITS.pageFiles + excess) })],
    [
      "nameBytes",
      (excess) => manifestOf({ files: [emptyFile("é".repeat(127) + "x".repeat(1 + excess))] }),
    ],
  ];
  test.each(makers)("%s", (_name, make) => {
    expect(sides(make(0))).toEqual({ writer: "ok", reader: "ok" });
    expect(sides(make(1))).toEqual({ writer: "RangeError", reader: "not asked" });
  });
});

test("saveTo refuses user data beyond the limit", () => {
  // Two together. At the limit itself the test would only take longer.
  const half = LIMITS.userDataBytes / 2;
  const manifest = manifestOf({
    files: [emptyFile("main", half)],
    userData: new Uint8Array(half + 1),
  });
  expect(sides(manifest)).toEqual({ writer: "RangeError", reader: "not asked" });
});

test("encodeName accepts 1 to 255 bytes of well-formed UTF-8 without NUL", () => {
  for (const name of ["x", "é".repeat(127), "x".repeat(255)])
    expect(encodeName(name)).toEqual(new TextEncoder().encode(name));
  for (const name of ["", "é".repeat(128), "a\0b", "\ud800"])
    expect(encodeName(name)).toBeUndefined();
});

test("saveTo beyond a limit changes nothing, also with a function's user data", async () => {
  await withDirectory(async (directory) => {
    using file = MemoryFile.create();
    file.view(file.allocate(PAGE_SIZE)).fill(1);
    await file.saveTo(directory, { userData: new Uint8Array([7]) });
    const large = new Uint8Array(LIMITS.userDataBytes + 1);
    await expect(file.saveTo(directory, { userData: large })).rejects.toThrow(RangeError);
    const late = file.saveTo(directory, { userData: () => large.subarray() });
    await expect(late).rejects.toThrow("bytes of userData to be at most");
    await expect(saveAll(directory, { ["x".repeat(256)]: file })).rejects.toThrow(RangeError);
    using back = await MemoryFile.loadFrom(directory);
    expect(back.userData).toEqual(new Uint8Array([7]));
  });
});
