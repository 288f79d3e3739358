/**
 * Checkpoints that were damaged on purpose: each is refused with CorruptCheckpointError, or is a
 * valid image. Memory stays within a multiple of the file's size, for all numbers in it.
 */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { CorruptCheckpointError } from "../../src/errors/errors.ts";
import { imageToMetadata } from "../../src/gvisor/compose.ts";
import {
  CHUNK_PAGES,
  KIND_MAX,
  type MemoryFileImage,
  PAGE_BYTES,
  REFS_MAX,
  RunState,
} from "../../src/gvisor/image.ts";
import { decodeMetadata, encodeMetadata, type GvisorMetadata } from "../../src/gvisor/metadata.ts";
import { readImage } from "../../src/gvisor/read-image.ts";
import { withLength, memorySource } from "../../src/gvisor/stream.ts";
import { U64_MAX } from "../../src/gvisor/wire.ts";
import { applyEdit, type Columns, editArbitrary, SECTIONS } from "./support/edits.ts";
import { type Fixture, fixtures, imageArbitrary, messageOf } from "./support.ts";

/**
 * Cases of each random test. For more: `PGALLOC_CASES=20000 bun test --timeout 600000
 * test/gvisor/hostile.test.ts`.
 */
const CASES = Number(Bun.env["PGALLOC_CASES"] ?? 500);

/**
 * True if the checkpoint was accepted. Throws for every error except the right one, and for an
 * invalid image.
 */
function attempt(metadata: Uint8Array, pagesBytes: number | null): boolean {
  let image: MemoryFileImage;
  try {
    image = readImage(
      memorySource(metadata, "meta"),
      pagesBytes === null ? null : { sizeBytes: pagesBytes },
    ).image;
  } catch (error) {
    if (error instanceof CorruptCheckpointError) return false;
    throw error;
  }
  checkImage(image, pagesBytes ?? metadata.length);
  return true;
}

/** Checks the preconditions of the code that maps and fills memory. */
function checkImage(image: MemoryFileImage, fileBytes: number): void {
  const { chunkHuge, runs, extents } = image;
  const must = (condition: boolean, what: string): void => {
    if (!condition) throw new Error(what);
  };
  const committable: [number, number][] = [];
  let end = 0;
  for (const [i, start] of runs.start.entries()) {
    must(start >= end && runs.length[i]! > 0, `run ${i} is out of order`);
    end = start + runs.length[i]!;
    must(end <= chunkHuge.length * CHUNK_PAGES, `run ${i} leaves the file`);
    const [first, last] = [Math.floor(start / CHUNK_PAGES), Math.ceil(end / CHUNK_PAGES)];
    must(new Set(chunkHuge.subarray(first, last)).size === 1, `run ${i} has pages of two sizes`);
    must((runs.state[i] === RunState.used) === runs.refs[i]! > 0, `run ${i} has wrong references`);
    must(runs.refs[i]! <= REFS_MAX && runs.kind[i]! <= KIND_MAX, `run ${i} has numbers too large`);
    if (runs.state[i] === RunState.subReleased)
      must(chunkHuge[first] === 1, `run ${i} is sub-released`);
    else if (committable.at(-1)?.[1] === start) committable.at(-1)![1] = end;
    else committable.push([start, end]);
  }
  let page = 0;
  let offset = 0;
  let home = 0;
  for (const [i, start] of extents.start.entries()) {
    must(
      start >= page && extents.fileOffset[i]! >= offset && extents.length[i]! > 0,
      `extent ${i} is out of order`,
    );
    page = start + extents.length[i]!;
    offset = extents.fileOffset[i]! + extents.length[i]! * PAGE_BYTES;
    must(offset <= fileBytes, `extent ${i} leaves its file`);
    while (home < committable.length && committable[home]![1] <= start) home++;
    must(
      home < committable.length && committable[home]![0] <= start && page <= committable[home]![1],
      `extent ${i} is homeless`,
    );
  }
  // It can be written again, with the same meaning.
  const again = encodeMetadata(imageToMetadata(image, { foreignKind: 0 }));
  const pages = extents.length.reduce((sum, length) => sum + length, 0);
  const kindsKept = { ...image.runs, kind: image.runs.kind.map((kind) => (kind > 5 ? 0 : kind)) };
  const back = readImage(memorySource(withLength(again)), {
    sizeBytes: pages * PAGE_BYTES,
  }).image;
  if (kindsKept.kind.every((kind, i) => kind === image.runs.kind[i]))
    expect(back.runs).toEqual(image.runs);
  expect(back.extents.length.reduce((sum, length) => sum + length, 0)).toBe(pages);
}

describe.each(fixtures.map((fixture) => [fixture.name, fixture] as const))(
  "fixture %s",
  (_name, fixture) => {
    const { metadata } = fixture;
    const pagesBytes = fixture.pages?.length ?? null;
    // The decoder does not read contents: damage the part that it reads.
    const message = messageOf(fixture);
    const headBytes = 8 + message.length;

    test("is refused or valid with bytes changed", () => {
      let taken = 0;
      const change = fc.record({ at: fc.nat({ max: headBytes - 1 }), to: fc.nat({ max: 255 }) });
      fc.assert(
        fc.property(fc.array(change, { minLength: 1, maxLength: 4 }), (changes) => {
          const bytes = metadata.slice();
          for (const { at, to } of changes) bytes[at] = to;
          if (attempt(bytes, pagesBytes)) taken++;
        }),
        { numRuns: CASES },
      );
      expect(taken).toBeLessThan(CASES);
    });

    test("is refused or valid with any one bit flipped", () => {
      for (let at = 0; at < headBytes; at++) {
        const bytes = metadata.slice();
        bytes[at]! ^= 1 << (at % 8);
        attempt(bytes, pagesBytes);
      }
    });

    test("is refused or valid when cut off, or with bytes inserted", () => {
      fc.assert(
        fc.property(
          fc.nat({ max: headBytes }),
          fc.nat({ max: 64 }),
          fc.uint8Array({ maxLength: 64 }),
          (at, dropped, added) => {
            const bytes = new Uint8Array(
              Buffer.concat([metadata.subarray(0, at), added, metadata.subarray(at + dropped)]),
            );
            attempt(bytes, pagesBytes);
            // The length is right, so the error is in the message itself.
            const inner = Math.min(Math.max(at - 8, 0), message.length);
            const edited = Buffer.concat([
              message.subarray(0, inner),
              added,
              message.subarray(inner + dropped),
            ]);
            const whole = Buffer.concat([withLength(edited), metadata.subarray(headBytes)]);
            attempt(new Uint8Array(whole), pagesBytes);
          },
        ),
        { numRuns: CASES },
      );
    });

    test("is refused or valid with fields edited", () => {
      const decoded = decodeMetadata(message);
      fc.assert(
        fc.property(fc.array(editArbitrary, { minLength: 1, maxLength: 3 }), (edits) => {
          const edited = edits.reduce(applyEdit, decoded);
          const whole = Buffer.concat([
            withLength(encodeMetadata(edited)),
            metadata.subarray(headBytes),
          ]);
          attempt(new Uint8Array(whole), pagesBytes);
        }),
        { numRuns: CASES },
      );
    });
  },
);

test("readImage refuses or validates random images with fields edited", () => {
  let taken = 0;
  fc.assert(
    fc.property(imageArbitrary, fc.array(editArbitrary, { maxLength: 2 }), (image, edits) => {
      const edited = edits.reduce(applyEdit, imageToMetadata(image));
      const pages = image.extents.length.reduce((sum, length) => sum + length, 0);
      if (attempt(withLength(encodeMetadata(edited)), pages * PAGE_BYTES)) taken++;
    }),
    { numRuns: CASES },
  );
  // Cases without an edit are accepted, so the test reaches the last checks.
  expect(taken).toBeGreaterThan(0);
});

test("readImage refuses noise", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (noise) => {
      attempt(noise, 0);
      attempt(withLength(new Uint8Array([0x08, 1, ...noise])), 0);
    }),
    { numRuns: CASES },
  );
});

describe("memory", () => {
  const refused = expect.objectContaining({ code: "ERR_CORRUPT_CHECKPOINT" });
  const read = (bytes: Uint8Array) => readImage(memorySource(bytes), { sizeBytes: 0 });

  test("stays small for a declared length of exabytes", () => {
    for (const high of [0, 1, 0x7fff_ffff, 0xffff_ffff]) {
      const bytes = new Uint8Array(1000);
      new DataView(bytes.buffer).setUint32(0, 0xffff_ffff, true);
      new DataView(bytes.buffer).setUint32(4, high, true);
      expect(() => read(bytes)).toThrow(refused);
    }
  });

  test("stays below 16 bytes of columns for each byte of the message", () => {
    // The shortest possible entries.
    for (const tag of [0x12, 0x1a, 0x22, 0x2a, 0x32, 0x3a, 0x42]) {
      const message = new Uint8Array(20_002);
      message.set([0x08, 1]);
      for (let at = 2; at < message.length; at += 2) message[at] = tag;
      const decoded = decodeMetadata(message);
      let columnBytes = 0;
      for (const section of SECTIONS) {
        for (const column of Object.values(decoded[section] as unknown as Columns))
          columnBytes += column.byteLength;
      }
      expect(columnBytes).toBeLessThanOrEqual(16 * message.length);
      const before = process.memoryUsage().rss;
      expect(() => read(withLength(message))).toThrow(refused);
      expect(process.memoryUsage().rss - before).toBeLessThan(128 * 2 ** 20);
    }
  });

  test("stays the same for ranges of terabytes and for small ones", () => {
    const [, huge] = fixtures as [Fixture, Fixture];
    const decoded = decodeMetadata(messageOf(huge));
    const sizeBytes = 8192 * 2 ** 30;
    const everything = { start: new Float64Array([0]), end: new Float64Array([U64_MAX]) };
    const one = { start: new Float64Array([0]), end: new Float64Array([sizeBytes]) };
    const edited: GvisorMetadata = {
      ...decoded,
      chunks: { huge: new Uint8Array(8192).fill(1) },
      memAcct: {
        ...one,
        kind: new Uint32Array(1),
        group: new Uint32Array(1),
        knownCommitted: new Uint8Array(1),
      },
      unfreeSmall: { ...everything, refs: new Float64Array(1) },
      unfreeHuge: {
        start: new Float64Array([0, sizeBytes]),
        end: new Float64Array([sizeBytes, U64_MAX]),
        refs: new Float64Array([1, 0]),
      },
      unwasteSmall: everything,
      unwasteHuge: everything,
    };
    expect([...read(withLength(encodeMetadata(edited))).image.runs.length]).toEqual([2 ** 31]);
    expect(() =>
      readImage(memorySource(withLength(encodeMetadata(edited))), null, { limitBytes: 2 ** 40 }),
    ).toThrow("limitBytes");
    edited.memAcct.knownCommitted[0] = 1;
    expect(() => read(withLength(encodeMetadata(edited)))).toThrow(refused);
  });
});
