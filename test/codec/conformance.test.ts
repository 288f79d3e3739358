/** One suite for every codec and every library behind it: the contract of codec.ts. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { openLz4, openZstd } from "../../ffi/index.ts";
import { bunZstd } from "../../src/codec/bun-zstd.ts";
import { type Codec, CodecId, REFUSED } from "../../src/codec/codec.ts";
import { nativeCodec } from "../../src/codec/native.ts";
import { ZSTD_LEVEL } from "../../src/codec/open-codec.ts";
import { RAW } from "../../src/codec/raw.ts";
import { NativeMemory } from "../aio/support/memory.ts";
import { CONTENTS_KINDS, contentsOf } from "./support/contents.ts";

const FRAME_BYTES_MAX = 2 ** 21;
const SLACK_BYTES = 16384;
const GUARD = 0xa5;

const lz4 = openLz4();
const zstd = openZstd(ZSTD_LEVEL);

interface Kind {
  readonly title: string;
  readonly codec: Codec | undefined;
}

const kinds: Kind[] = [
  { title: "raw", codec: RAW },
  {
    title: "lz4 by liblz4",
    codec: lz4 instanceof Error ? undefined : nativeCodec({ id: CodecId.Lz4, name: "lz4" }, lz4),
  },
  {
    title: "zstd by libzstd",
    codec:
      zstd instanceof Error ? undefined : nativeCodec({ id: CodecId.Zstd, name: "zstd" }, zstd),
  },
  { title: "zstd by Bun", codec: bunZstd(ZSTD_LEVEL) },
];

/** Places for contents, a frame, and decoded contents with guard bytes behind them. */
class Bench implements Disposable {
  readonly contents = new NativeMemory(FRAME_BYTES_MAX);
  readonly frame = new NativeMemory(FRAME_BYTES_MAX + SLACK_BYTES);
  readonly decoded = new NativeMemory(FRAME_BYTES_MAX + SLACK_BYTES);

  encode(codec: Codec, contents: Uint8Array, capacityBytes = FRAME_BYTES_MAX + SLACK_BYTES) {
    this.contents.bytes.set(contents);
    return codec.encode({
      source: this.contents.address,
      lengthBytes: contents.length,
      destination: this.frame.address,
      capacityBytes,
    });
  }

  /** Decodes the frame, and fails if a byte behind `lengthBytes` changes. */
  decode(codec: Codec, storedBytes: number, lengthBytes: number): number {
    const guard = this.decoded.bytes.subarray(lengthBytes, lengthBytes + SLACK_BYTES);
    guard.fill(GUARD);
    const result = codec.decode({
      source: this.frame.address,
      storedBytes,
      destination: this.decoded.address,
      lengthBytes,
    });
    if (guard.some((byte) => byte !== GUARD)) throw new Error("Wrote behind the destination");
    return result;
  }

  [Symbol.dispose](): void {
    this.contents[Symbol.dispose]();
    this.frame[Symbol.dispose]();
    this.decoded[Symbol.dispose]();
  }
}

for (const { title, codec } of kinds) {
  describe.skipIf(codec === undefined)(
    codec === undefined ? `${title} (not installed here)` : title,
    () => suite(codec!),
  );
}

function suite(codec: Codec): void {
  for (const kind of CONTENTS_KINDS) {
    test(`decode returns ${kind} of every size`, () => {
      using bench = new Bench();
      for (const lengthBytes of [4096, 8192, 2 ** 16, 2 ** 16 + 4096, 2 ** 20, 2 ** 21]) {
        const contents = contentsOf(kind, lengthBytes);
        const storedBytes = bench.encode(codec, contents);
        expect(storedBytes).toBeGreaterThan(0);
        expect(bench.decode(codec, storedBytes, lengthBytes)).toBe(lengthBytes);
        expect(Buffer.compare(bench.decoded.bytes.subarray(0, lengthBytes), contents)).toBe(0);
      }
    });
  }

  test("encode refuses contents that do not fit, and writes nothing behind the capacity", () => {
    using bench = new Bench();
    for (const kind of CONTENTS_KINDS) {
      const contents = contentsOf(kind, 2 ** 17);
      const storedBytes = bench.encode(codec, contents);
      for (const capacityBytes of [storedBytes - 1, Math.floor(storedBytes / 2), 8]) {
        bench.frame.bytes.fill(GUARD);
        expect(bench.encode(codec, contents, capacityBytes)).toBe(REFUSED);
        expect(bench.frame.bytes.subarray(capacityBytes).every((byte) => byte === GUARD)).toBe(
          true,
        );
      }
    }
  });

  test("encode keeps incompressible contents raw when 1/16 must be saved", () => {
    using bench = new Bench();
    const contents = contentsOf("noise", 2 ** 21);
    expect(bench.encode(codec, contents, 2 ** 21 - 2 ** 17)).toBe(REFUSED);
  });

  test("decode refuses a frame of another length than expected", () => {
    using bench = new Bench();
    const storedBytes = bench.encode(codec, contentsOf("text", 2 ** 16));
    for (const lengthBytes of [2 ** 16 - 4096, 2 ** 16 + 4096, 2 ** 20, 4096])
      expect(bench.decode(codec, storedBytes, lengthBytes)).toBe(REFUSED);
  });

  test("decode refuses a truncated frame and one with bytes behind its end", () => {
    using bench = new Bench();
    const storedBytes = bench.encode(codec, contentsOf("text", 2 ** 16));
    for (const stored of [0, 1, 2, 4, 5, 6, 8, 100, storedBytes - 1, storedBytes + 16])
      expect(bench.decode(codec, stored, 2 ** 16)).toBe(REFUSED);
  });

  test("decode survives random frames", () => {
    using bench = new Bench();
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 2048 }),
        fc.constantFrom(4096, 65536, FRAME_BYTES_MAX),
        fc.boolean(),
        (frame, lengthBytes, hasMagic) => {
          bench.frame.bytes.set(frame);
          if (hasMagic) bench.frame.bytes.set([0x28, 0xb5, 0x2f, 0xfd]);
          expect([REFUSED, lengthBytes]).toContain(bench.decode(codec, frame.length, lengthBytes));
        },
      ),
      { numRuns: 500 },
    );
  });

  test("decode survives mutated frames", () => {
    using bench = new Bench();
    const lengthBytes = 2 ** 16;
    const frames = CONTENTS_KINDS.map((kind) => {
      const storedBytes = bench.encode(codec, contentsOf(kind, lengthBytes));
      return bench.frame.bytes.slice(0, storedBytes);
    });
    const edits = fc.array(fc.tuple(fc.double({ min: 0, max: 1, noNaN: true }), fc.nat(255)), {
      minLength: 1,
      maxLength: 8,
    });
    fc.assert(
      fc.property(fc.constantFrom(...frames), edits, fc.boolean(), (frame, changes, atStart) => {
        bench.frame.bytes.set(frame);
        const span = atStart ? Math.min(64, frame.length) : frame.length;
        for (const [place, value] of changes)
          bench.frame.bytes[Math.min(span - 1, Math.floor(place * span))] = value;
        expect([REFUSED, lengthBytes]).toContain(bench.decode(codec, frame.length, lengthBytes));
      }),
      { numRuns: 500 },
    );
  });
}

describe.skipIf(zstd instanceof Error)("zstd", () => {
  test("decode reads frames of libzstd and of Bun by either", () => {
    using bench = new Bench();
    const native = nativeCodec({ id: CodecId.Zstd, name: "zstd" }, zstd as never);
    const bun = bunZstd(ZSTD_LEVEL);
    for (const kind of CONTENTS_KINDS)
      for (const [from, to] of [
        [native, bun],
        [bun, native],
      ] as const) {
        const contents = contentsOf(kind, 2 ** 20);
        const storedBytes = bench.encode(from, contents);
        expect(bench.decode(to, storedBytes, contents.length)).toBe(contents.length);
        expect(Buffer.compare(bench.decoded.bytes.subarray(0, contents.length), contents)).toBe(0);
      }
  });
});
