/** The library that a compression uses, and the errors without one. */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { openLz4, openZstd } from "../../ffi/index.ts";
import { CodecId } from "../../src/codec/codec.ts";
import { codecFor, isCompression, openCodec } from "../../src/codec/open-codec.ts";
import { zstdFrameSizes } from "../../src/codec/zstd-frame.ts";
import { contentsOf } from "./support/contents.ts";

/** Runs `source` in a process that cannot see the libraries; returns what it printed. */
function runWithout(libraries: string, source: string): string {
  const child = Bun.spawnSync([process.execPath, "-e", source], {
    env: { ...process.env, PGALLOC_HIDE_CODECS: libraries },
    cwd: join(import.meta.dir, "../.."),
  });
  expect(child.stderr.toString()).toBe("");
  return child.stdout.toString();
}

test("openCodec returns the codec of an id or a name", () => {
  expect(codecFor("none")).toBe(openCodec(CodecId.Raw));
  expect(codecFor("zstd")).toBe(openCodec(CodecId.Zstd));
  expect(codecFor("zstd").name).toBe("zstd");
});

test("isCompression accepts only the names", () => {
  expect(["none", "lz4", "zstd"].every(isCompression)).toBe(true);
  expect(["raw", "gzip", "", 1, undefined, "toString"].some(isCompression)).toBe(false);
});

test("codecFor without liblz4 throws a typed error that says what to install", () => {
  const printed = runWithout(
    "lz4",
    `import { codecFor } from "./src/codec/open-codec.ts";
     import { CodecUnavailableError } from "./src/index.ts";
     try { codecFor("lz4"); } catch (error) {
       console.log(error instanceof CodecUnavailableError, error.code, error.codec, error.message);
     }`,
  );
  expect(printed).toStartWith("true ERR_CODEC_UNAVAILABLE lz4 ");
  expect(printed).toContain("liblz4-1");
});

test("codecFor without libzstd decodes what libzstd encoded", () => {
  const frame = Bun.zstdCompressSync(contentsOf("text", 8192), { level: 1 });
  const printed = runWithout(
    "zstd,lz4",
    `import { codecFor } from "./src/codec/open-codec.ts";
     import { mapAnonymous, bufferAt } from "./ffi/index.ts";
     const source = mapAnonymous(65536), destination = mapAnonymous(65536);
     const frame = Buffer.from("${Buffer.from(frame).toString("base64")}", "base64");
     new Uint8Array(bufferAt(source, 65536)).set(frame);
     console.log(codecFor("zstd").decode(
       { source, storedBytes: frame.length, destination, lengthBytes: 8192 }));`,
  );
  expect(printed.trim()).toBe("8192");
});

describe("native libraries", () => {
  test("open functions return the reason if no library has the name", () => {
    expect(openLz4(["libpgalloc-no-such.so.1"])).toBeInstanceOf(AggregateError);
    expect(openZstd(1, ["libpgalloc-no-such.so.1"])).toBeInstanceOf(AggregateError);
  });

  test("open functions check their arguments before the call", () => {
    expect(() => openZstd(0)).toThrow(RangeError);
    expect(() => openZstd(1.5)).toThrow(RangeError);
    for (const library of [openLz4(), openZstd(1)]) {
      if (library instanceof Error) continue;
      const good = { source: 4096, sourceBytes: 1, destination: 4096, capacityBytes: 1 };
      for (const bad of [
        { source: 0 },
        { sourceBytes: 1.5 },
        { destination: Number.NaN },
        { capacityBytes: -1 },
        { capacityBytes: 2 ** 60 },
      ]) {
        expect(() => library.compress({ ...good, ...bad })).toThrow(RangeError);
        expect(() => library.decompress({ ...good, ...bad })).toThrow(RangeError);
      }
    }
  });
});

test("zstdFrameSizes equals the encoder's sizes for every form of header", () => {
  for (const lengthBytes of [1, 255, 256, 257, 65_791, 65_792, 2 ** 20 + 3]) {
    const frame = Bun.zstdCompressSync(contentsOf("records", lengthBytes), { level: 1 });
    expect(zstdFrameSizes(frame)).toEqual({
      contentBytes: lengthBytes,
      frameBytes: frame.byteLength,
    });
    expect(zstdFrameSizes(frame.subarray(0, -1))).toBeUndefined();
  }
});
