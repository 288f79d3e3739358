/** The message's encoder and decoder compared with protobufjs, and protobuf's rules one by one. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { CorruptCheckpointError } from "../../src/errors/errors.ts";
import { decodeMetadata, encodeMetadata, type GvisorMetadata } from "../../src/gvisor/metadata.ts";
import { U64_MAX, varintLengthBytes, WireReader, WireWriter } from "../../src/gvisor/wire.ts";
import { fixtures, messageOf, oracleDecode, oracleEncode, toOracle } from "./support.ts";

const value = fc.oneof(
  fc.constantFrom(
    0,
    1,
    127,
    128,
    2 ** 28,
    2 ** 31,
    2 ** 32 - 1,
    2 ** 32,
    2 ** 35,
    2 ** 53 - 1,
    U64_MAX,
  ),
  fc.maxSafeNat(),
  fc.nat(),
);
const word = fc.oneof(fc.nat({ max: 3 }), fc.integer({ min: 0, max: 2 ** 32 - 1 }));

const columns = (...arbitraries: fc.Arbitrary<number>[]): fc.Arbitrary<number[][]> =>
  fc
    .array(fc.tuple(...arbitraries), { maxLength: 20 })
    .map((rows) => arbitraries.map((_, column) => rows.map((row) => row[column]!)));

const metadataArbitrary: fc.Arbitrary<GvisorMetadata> = fc
  .record({
    huge: fc.array(fc.nat({ max: 1 }), { maxLength: 20 }),
    memAcct: columns(value, value, word, word, fc.nat({ max: 1 })),
    unfreeSmall: columns(value, value, value),
    unfreeHuge: columns(value, value, value),
    unwasteSmall: columns(value, value),
    unwasteHuge: columns(value, value),
    subreleased: fc.uniqueArray(fc.tuple(value, value), {
      selector: ([key]) => key,
      maxLength: 20,
    }),
  })
  .map((m) => {
    const f64 = (rows: number[][], column: number) => new Float64Array(rows[column]!);
    const range = (rows: number[][]) => ({ start: f64(rows, 0), end: f64(rows, 1) });
    const unfree = (rows: number[][]) => ({ ...range(rows), refs: f64(rows, 2) });
    const sorted = m.subreleased.sort(([a], [b]) => (a < b ? -1 : 1));
    return {
      chunks: { huge: new Uint8Array(m.huge) },
      memAcct: {
        ...range(m.memAcct),
        kind: new Uint32Array(m.memAcct[2]!),
        group: new Uint32Array(m.memAcct[3]!),
        knownCommitted: new Uint8Array(m.memAcct[4]!),
      },
      unfreeSmall: unfree(m.unfreeSmall),
      unfreeHuge: unfree(m.unfreeHuge),
      unwasteSmall: range(m.unwasteSmall),
      unwasteHuge: range(m.unwasteHuge),
      subreleased: {
        hugeStart: new Float64Array(sorted.map(([key]) => key)),
        count: new Float64Array(sorted.map(([, count]) => count)),
      },
    };
  });

describe("against protobufjs", () => {
  test("writes the same bytes, and each reads the other's bytes", () => {
    fc.assert(
      fc.property(metadataArbitrary, (metadata) => {
        const bytes = encodeMetadata(metadata);
        expect(bytes).toEqual(oracleEncode(toOracle(metadata)));
        expect(decodeMetadata(bytes)).toEqual(metadata);
        expect(oracleDecode(bytes)).toEqual(toOracle(metadata));
      }),
      { numRuns: 500 },
    );
  });

  test("skips fields of a later version, at every level", () => {
    fc.assert(
      fc.property(metadataArbitrary, fc.string(), fc.nat(), (metadata, text, number) => {
        const message = toOracle(metadata) as Record<string, Record<string, unknown>[]>;
        for (const field of ["unwasteSmall", "unwasteHuge"])
          for (const row of message[field]!) row["later"] = text;
        for (const row of [...message["unfreeSmall"]!, ...message["memAcct"]!])
          row["later"] = number;
        const later = {
          ...message,
          laterPacked: [number, 1],
          laterDouble: number,
          laterMessage: { start: "18446744073709551614" },
        };
        expect(decodeMetadata(oracleEncode(later))).toEqual(metadata);
      }),
      { numRuns: 100 },
    );
  });

  test.each(fixtures.map((fixture) => [fixture.name, messageOf(fixture)] as const))(
    "fixture %s",
    (_name, message) => {
      expect(toOracle(decodeMetadata(message))).toEqual(oracleDecode(message));
    },
  );
});

const VERSION = [0x08, 1];
const decode = (...bytes: number[]) => decodeMetadata(new Uint8Array([...VERSION, ...bytes]));

describe("protobuf's rules", () => {
  test("the last of several scalars counts", () => {
    expect([...decode(0x32, 4, 0x10, 5, 0x10, 6).unwasteSmall.end]).toEqual([6]);
    expect(() => decode(0x08, 2)).toThrow("version 2");
    expect(decodeMetadata(new Uint8Array([0x08, 2, ...VERSION])).chunks.huge.length).toBe(0);
  });

  test("a map's entries are sorted, and the last of a key counts", () => {
    const { hugeStart, count } = decode(
      0x42,
      4,
      0x10,
      7,
      0x08,
      9,
      0x42,
      2,
      0x10,
      3,
      0x42,
      4,
      0x08,
      9,
      0x10,
      8,
      0x42,
      0,
    ).subreleased;
    expect([...hugeStart]).toEqual([0, 9]);
    expect([...count]).toEqual([0, 8]);
  });

  test("absent fields are 0, and an empty message is an entry", () => {
    const { chunks, memAcct } = decode(0x12, 0, 0x1a, 0, 0x12, 2, 0x08, 1);
    expect([...chunks.huge]).toEqual([0, 1]);
    expect([
      memAcct.start[0],
      memAcct.end[0],
      memAcct.kind[0],
      memAcct.group[0],
      memAcct.knownCommitted[0],
    ]).toEqual([0, 0, 0, 0, 0]);
  });

  test("32-bit fields take the low half of a longer varint, and any varint but 0 is true", () => {
    const big = [0x81, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1];
    expect(decode(0x1a, 11, 0x18, ...big).memAcct.kind[0]).toBe(1);
    const high = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1];
    expect(decode(0x1a, 11, 0x28, ...high).memAcct.knownCommitted[0]).toBe(1);
  });

  test("a known field of another wire type is unknown", () => {
    expect(decode(0x32, 5, 0x15, 1, 2, 3, 4).unwasteSmall.end[0]).toBe(0);
    expect(decode(0x38, 1).unwasteHuge.end.length).toBe(0);
  });

  test.each([
    ["a group", [0x0b, 0x0c], "Groups"],
    ["the end of a group", [0x0c], "Groups"],
    ["a wire type of 6", [0x0e], "Wire type 6"],
    ["field 0", [0x00, 0x00], "Field number"],
    ["a field number of 35 bits", [0x80, 0x80, 0x80, 0x80, 0x10], "Field number"],
    [
      "a varint of 65 bits",
      [0x48, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2],
      "exceeds 64 bits",
    ],
    ["an endless varint", [0x48, ...new Array(11).fill(0x80)], "exceeds 64 bits"],
    ["half a varint", [0x48, 0x80], "cut off"],
    ["a length beyond the message", [0x32, 3, 0x10, 5], "cut off"],
    ["a length beyond the inner message", [0x32, 4, 0x1a, 4, 1, 1, 0x48, 0x01], "cut off"],
    [
      "a length of 2^63",
      [0x32, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1],
      "cut off",
    ],
    ["half a fixed64", [0x49, 1, 2, 3], "cut off"],
    ["half a fixed32", [0x4d, 1, 2, 3], "cut off"],
    [
      "an offset of 2^53",
      [0x32, 9, 0x10, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10],
      "0x20000000000000",
    ],
    [
      "an offset of 2^64-2",
      [0x32, 11, 0x10, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
      "0xfffffffffffffffe",
    ],
  ])("refuses %s", (_name, bytes, message) => {
    const attempt = () => decode(...bytes);
    expect(attempt).toThrow(CorruptCheckpointError);
    expect(attempt).toThrow(message);
  });

  test("refuses a missing version, and a version of 2^64-1", () => {
    expect(() => decodeMetadata(new Uint8Array())).toThrow("version 0");
    const version = encodeVarint(U64_MAX);
    expect(() => decodeMetadata(new Uint8Array([0x08, ...version]))).toThrow("version 2^64-1");
  });

  test("applies limits on size and chunks", () => {
    expect(() => decodeMetadata(new Uint8Array(VERSION), { metadataBytesMax: 1 })).toThrow(
      "exceeds the limit of 1",
    );
    const chunks = new Uint8Array([...VERSION, 0x12, 0, 0x12, 0]);
    expect(() => decodeMetadata(chunks, { chunksMax: 1 })).toThrow("2 chunks");
  });

  test("names the place of an error in the file", () => {
    try {
      decodeMetadata(new Uint8Array([...VERSION, 0x48, 0x80]), {}, { path: "meta", offset: 100 });
      throw new Error("accepted");
    } catch (error) {
      expect(error).toMatchObject({
        code: "ERR_CORRUPT_CHECKPOINT",
        path: "meta",
        section: "metadata",
        offset: 103,
      });
    }
  });
});

function encodeVarint(number: number): Uint8Array {
  const writer = new WireWriter(new Uint8Array(varintLengthBytes(number)));
  writer.varint(number);
  expect(writer.position).toBe(writer.bytes.length);
  return writer.bytes;
}

describe("varints", () => {
  test("round-trip every number below 2^53, and 2^64-1", () => {
    fc.assert(
      fc.property(value, (number) => {
        expect(new WireReader(encodeVarint(number)).readU64()).toBe(number);
      }),
    );
  });

  test("refuse any other number", () => {
    for (const number of [-1, 0.5, Number.NaN, 2 ** 53]) {
      expect(() => new WireWriter(new Uint8Array(10)).varint(number)).toThrow(RangeError);
    }
  });
});
