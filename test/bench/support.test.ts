/**
 * Traces, stamps and statistics, compared with the values in bench/peers/gvisor/README.md and with
 * BigInt.
 */
import { expect, test } from "bun:test";
import { parseOptions } from "../../bench/options.ts";
import { growthExponent, median, percentile } from "../../bench/support/statistics.ts";
import {
  checkStamp,
  filledBytes,
  makeTrace,
  Random,
  stampPages,
} from "../../bench/support/trace.ts";
import { PAGE_SIZE } from "../../src/index.ts";

test("Random gives the same numbers as the peer's generator", () => {
  const random = new Random(1);
  expect(Array.from({ length: 5 }, () => random.next())).toEqual([
    270369, 67634689, 2647435461, 307599695, 2398689233,
  ]);
});

test("traces are the same as the peer's", () => {
  const { fill, slots, pages, hash } = makeTrace(4, 3, 1, true);
  expect([...fill]).toEqual([34, 2, 6, 16]);
  expect([...slots]).toEqual([1, 2, 1]);
  expect([...pages]).toEqual([17, 51, 53]);
  expect(hash).toBe("282c545c");
  const hashes = [100, 10_000, 100_000].flatMap((live) =>
    [true, false].map((with_) => makeTrace(live, 200_000, 1, with_).hash),
  );
  expect(hashes).toEqual(["4268522e", "3949ae38", "31466869", "322e9f2d", "9a39e8af", "86f92c5e"]);
});

test("stampPages writes index × factor + offset, modulo 2^64", () => {
  for (const first of [0, 1, 524_284, 2 ** 31]) {
    const words = new Uint32Array((4 * PAGE_SIZE) / 4);
    stampPages(words, first, "fragmented");
    const stamps = new BigUint64Array(words.buffer);
    for (let i = 0; i < stamps.length; i++) {
      const page = first + Math.floor((8 * i) / PAGE_SIZE);
      const wanted =
        page % 4 === 3
          ? 0n
          : BigInt.asUintN(64, BigInt(page) * 0x9e3779b97f4a7c15n + BigInt((8 * i) % PAGE_SIZE));
      if (stamps[i] !== wanted)
        throw new Error(`Page ${page}, word ${i}: ${stamps[i]}, expected ${wanted}`);
    }
    const page = new Uint8Array(words.buffer, 0, PAGE_SIZE);
    if (first % 4 !== 3) checkStamp(page, first);
    expect(() => checkStamp(page, first + 1)).toThrow(/Page \d+ holds/);
  }
});

test("stampPages leaves every fourth page of a fragmented image empty", () => {
  expect(filledBytes("fragmented", 8 * PAGE_SIZE)).toBe(6 * PAGE_SIZE);
  expect(filledBytes("dense", 8 * PAGE_SIZE)).toBe(8 * PAGE_SIZE);
});

test("median and percentile use nearest rank, as the peer's do", () => {
  expect(median([3, 1, 2])).toBe(2);
  expect(median([4, 1, 2, 3])).toBe(2.5);
  const hundred = Array.from({ length: 100 }, (_, i) => 100 - i);
  expect([0.5, 0.99, 1].map((p) => percentile(hundred, p))).toEqual([50, 99, 100]);
  expect(percentile([7], 0.5)).toBe(7);
  expect(percentile([], 0.5)).toBeNaN();
});

test("growthExponent of a power is that power", () => {
  expect(growthExponent([1, 4, 16], [1, 8, 64])).toBeCloseTo(1.5);
  expect(growthExponent([10, 1000], [5, 5])).toBe(0);
});

test("parseOptions writes results for a full run, or to the given path", () => {
  expect(parseOptions([]).out).not.toBeNull();
  for (const partial of [
    ["--smoke"],
    ["--only", "view"],
    ["--rounds", "2"],
    ["--bytes", "4194304"],
    ["--no-peers"],
  ]) {
    expect(parseOptions(partial).out).toBeNull();
    expect(parseOptions([...partial, "--write"]).out).not.toBeNull();
    expect(parseOptions([...partial, "--out", "there"]).out).toBe("there");
  }
});

test("parseOptions refuses bad command lines", () => {
  expect(() => parseOptions(["--rounds", "0"])).toThrow(RangeError);
  expect(() => parseOptions(["--rounds", "x"])).toThrow(/--rounds/);
  expect(() => parseOptions(["--bytes", "4096"])).toThrow(/--bytes/);
  expect(() => parseOptions(["--unknown"])).toThrow(TypeError);
});
