/** Composing metadata of an image, and the headers of contents in the stream. */
import { describe, expect, test } from "bun:test";
import { CorruptCheckpointError } from "../../src/errors/errors.ts";
import { imageToMetadata } from "../../src/gvisor/compose.ts";
import { locateInStream, memorySource } from "../../src/gvisor/stream.ts";
import { toOracle } from "./support.ts";
import { readBack, K, good, metadataOf, base } from "./support/sketch.ts";

describe("composing", () => {
  const image = readBack(metadataOf(good));

  test("needs a replacement for a program's own kinds", () => {
    const own = {
      ...image,
      runs: { ...image.runs, kind: image.runs.kind.map((kind) => (kind === 1 ? 200 : kind)) },
    };
    expect(() => imageToMetadata(own)).toThrow("got 200");
    expect(toOracle(imageToMetadata(own, { foreignKind: 1 }))).toEqual(toOracle(metadataOf(good)));
  });

  test("refuses an impossible image", () => {
    const { runs, extents } = image;
    const with1 = <T extends Uint32Array | Uint8Array>(
      column: T,
      index: number,
      value: number,
    ): T => column.with(index, value) as T;
    expect(() =>
      imageToMetadata({ ...image, runs: { ...runs, start: with1(runs.start, 1, 1) } }),
    ).toThrow(RangeError);
    expect(() =>
      imageToMetadata({ ...image, runs: { ...runs, length: with1(runs.length, 3, base + 512) } }),
    ).toThrow(RangeError);
    expect(() =>
      imageToMetadata({ ...image, runs: { ...runs, refs: with1(runs.refs, 0, 0) } }),
    ).toThrow(RangeError);
    expect(() =>
      imageToMetadata({ ...image, extents: { ...extents, start: with1(extents.start, 0, 100) } }),
    ).toThrow(RangeError);
    expect(() => imageToMetadata({ ...image, chunkHuge: new Uint8Array([0, 0]) })).toThrow(
      RangeError,
    );
    expect(() => imageToMetadata({ ...image, chunkHuge: new Uint8Array([0]) })).toThrow(RangeError);
  });
});

describe("headers of contents in the stream", () => {
  const committed = { start: new Uint32Array([0, 3]), length: new Uint32Array([2, 1]) };
  const parts = (first: number[], second: number[]) =>
    memorySource(
      new Uint8Array([
        9,
        ...first,
        ...new Array(2 * K).fill(0),
        ...second,
        ...new Array(K).fill(0),
      ]),
    );

  test("locate the contents", () => {
    const { extents, end } = locateInStream(committed, parts([0x80, 0x40], [0x80, 0x20]), 1);
    expect([...extents.fileOffset]).toEqual([3, 5 + 2 * K]);
    expect(end).toBe(5 + 3 * K);
  });

  test.each([
    [
      "objects",
      [0x80, 0xc0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1],
      [0x80, 0x20],
      "got objects",
    ],
    ["another length", [0x80, 0x20], [0x80, 0x20], "Expected 8192 bytes of pages, got 4096"],
    [
      "a length above 2^53",
      [0x80, 0xc0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x7f],
      [0x80, 0x20],
      "Expected 8192",
    ],
    ["66 bits", new Array(10).fill(0xff), [0x80, 0x20], "exceeds 64 bits"],
    ["contents cut off", [0x80, 0x40], [0x80], "Varint|Expected|cut off"],
  ])("are refused: %s", (_name, first, second, message) => {
    const attempt = () => locateInStream(committed, parts(first, second), 1);
    expect(attempt).toThrow(CorruptCheckpointError);
    expect(attempt).toThrow(new RegExp(message));
  });
});
