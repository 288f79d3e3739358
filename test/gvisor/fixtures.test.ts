/** Files that gVisor wrote, read and written again; `expected.json` describes their contents. */
import { describe, expect, test } from "bun:test";
import { imageToMetadata } from "../../src/gvisor/compose.ts";
import { CHUNK_PAGES, type MemoryFileImage, PAGE_BYTES, RunState } from "../../src/gvisor/image.ts";
import { decodeMetadata, encodeMetadata } from "../../src/gvisor/metadata.ts";
import { readImage } from "../../src/gvisor/read-image.ts";
import { withLength, streamHeader, memorySource } from "../../src/gvisor/stream.ts";
import { validateMetadata } from "../../src/gvisor/validate.ts";
import { type Expected, type Fixture, fixtures, messageOf } from "./support.ts";

const GOLDEN = 0x9e37_79b9_7f4a_7c15n;

function read({ metadata, pages }: Fixture): MemoryFileImage {
  return readImage(memorySource(metadata), pages === null ? null : { sizeBytes: pages.length })
    .image;
}

/** One string for each page, in any runs. */
function livePages(ranges: Expected["live"]): Map<number, string> {
  const pages = new Map<number, string>();
  for (const { start, end, refs, kind, group, huge } of ranges) {
    for (let at = start; at < end; at += PAGE_BYTES)
      pages.set(at, `refs ${refs} kind ${kind} group ${group} huge ${huge}`);
  }
  return pages;
}

function imageLivePages({ runs, chunkHuge }: MemoryFileImage): Map<number, string> {
  const used = [...runs.start.keys()].filter((run) => runs.state[run] === RunState.used);
  const live = used.map((run) => ({
    start: runs.start[run]! * PAGE_BYTES,
    end: (runs.start[run]! + runs.length[run]!) * PAGE_BYTES,
    refs: runs.refs[run]!,
    kind: runs.kind[run]!,
    group: runs.group[run]!,
    huge: chunkHuge[Math.floor(runs.start[run]! / CHUNK_PAGES)] === 1,
  }));
  return livePages(live);
}

/** File offset of the contents of every page that has contents. */
function contentOffsets({ extents }: MemoryFileImage): Map<number, number> {
  const offsets = new Map<number, number>();
  for (const [i, start] of extents.start.entries()) {
    for (let page = 0; page < extents.length[i]!; page++) {
      offsets.set((start + page) * PAGE_BYTES, extents.fileOffset[i]! + page * PAGE_BYTES);
    }
  }
  return offsets;
}

describe.each(fixtures.map((fixture) => [fixture.name, fixture] as const))(
  "fixture %s",
  (_name, fixture) => {
    const { metadata, pages, expected } = fixture;

    test("has exactly the live ranges with their references, kinds and groups", () => {
      const image = read(fixture);
      expect(image.chunkHuge.length * CHUNK_PAGES * PAGE_BYTES).toBe(expected.totalSize);
      const want = livePages(expected.live);
      expect(new Map([...imageLivePages(image)].sort(([a], [b]) => a - b))).toEqual(
        new Map([...want].sort(([a], [b]) => a - b)),
      );
      expect(image.runs.state.every((state) => state === RunState.used)).toBe(true);
    });

    test("has the stamped pages' contents at the places of the extents", () => {
      const file = pages ?? metadata;
      const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
      const offsets = contentOffsets(read(fixture));
      for (const { offset, index } of expected.filled) {
        const at = offsets.get(offset);
        if (at === undefined) throw new Error(`page ${offset} has no contents`);
        for (let byte = 0; byte < PAGE_BYTES; byte += 8) {
          const want = BigInt.asUintN(64, BigInt(index) * GOLDEN + BigInt(byte));
          if (view.getBigUint64(at + byte, true) !== want)
            throw new Error(`page ${offset} differs at byte ${byte}`);
        }
        offsets.delete(offset);
      }
      // All other stored pages are zero.
      for (const at of offsets.values())
        expect(file.subarray(at, at + PAGE_BYTES).every((byte) => byte === 0)).toBe(true);
    });

    test("is encoded to the same bytes again, also through an image", () => {
      const message = messageOf(fixture);
      expect(encodeMetadata(decodeMetadata(message))).toEqual(new Uint8Array(message));
      expect(encodeMetadata(imageToMetadata(read(fixture)))).toEqual(new Uint8Array(message));
      expect(withLength(message)).toEqual(metadata.slice(0, 8 + message.length));
    });

    test("is refused if it is cut off anywhere, or longer", () => {
      const corrupt = expect.objectContaining({ code: "ERR_CORRUPT_CHECKPOINT" });
      const step = Math.max(1, Math.floor(metadata.length / 300));
      for (let length = 0; length < metadata.length; length += step) {
        expect(() => read({ ...fixture, metadata: metadata.subarray(0, length) })).toThrow(corrupt);
      }
      expect(() =>
        read({ ...fixture, metadata: Buffer.concat([metadata, new Uint8Array(1)]) }),
      ).toThrow(corrupt);
      if (pages === null) return;
      for (const length of [0, pages.length - 1, pages.length + 1]) {
        expect(() => read({ ...fixture, pages: new Uint8Array(length) })).toThrow(corrupt);
      }
    });
  },
);

test("streamHeader writes the headers of contents without a pages file", () => {
  const fixture = fixtures.find(({ name }) => name === "inline")!;
  const message = messageOf(fixture);
  const { committed } = validateMetadata(decodeMetadata(message));
  const image = read(fixture);
  const parts: Uint8Array[] = [withLength(message)];
  const offsets = contentOffsets(image);
  for (const [i, start] of committed.start.entries()) {
    const lengthBytes = committed.length[i]! * PAGE_BYTES;
    const at = offsets.get(start * PAGE_BYTES)!;
    parts.push(streamHeader(lengthBytes), fixture.metadata.subarray(at, at + lengthBytes));
  }
  expect(Buffer.concat(parts).equals(fixture.metadata)).toBe(true);
});

test("readImage reads several MemoryFiles from one stream and pages file", () => {
  const [small, huge] = fixtures as [Fixture, Fixture];
  const metadata = memorySource(Buffer.concat([small.metadata, huge.metadata]));
  const pagesFile = { sizeBytes: small.pages!.length + huge.pages!.length };
  const first = readImage(metadata, pagesFile, { moreFollow: true });
  expect(first.image).toEqual(read(small));
  const second = readImage(metadata, pagesFile, {
    metadataOffset: first.metadataEnd,
    pagesOffset: first.pagesEnd,
  });
  expect(second.image.runs).toEqual(read(huge).runs);
  expect([...second.image.extents.fileOffset]).toEqual(
    [...read(huge).extents.fileOffset].map((at) => at + small.pages!.length),
  );
  expect(() => readImage(metadata, pagesFile)).toThrow("should end here");
});
