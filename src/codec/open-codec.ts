/** The codec of an id or of a compression's name. Each thread opens it once, on first use. */
import { openLz4, openZstd } from "../../ffi/index.ts";
import { CodecUnavailableError } from "../errors/errors.ts";
import { bunZstd } from "./bun-zstd.ts";
import { type Codec, CodecId, type Compression } from "./codec.ts";
import { nativeCodec } from "./native.ts";
import { RAW } from "./raw.ts";

/**
 * Levels 2 and 3 take up to twice as long to encode for 0 to 5 percent: docs/decisions/codecs.md.
 */
export const ZSTD_LEVEL = 1;

const CODEC_IDS: Readonly<Record<Compression, CodecId>> = {
  none: CodecId.Raw,
  lz4: CodecId.Lz4,
  zstd: CodecId.Zstd,
};

const opened = new Map<CodecId, Codec>();

/**
 * Precondition: `id` is a CodecId.
 * @throws {CodecUnavailableError} for lz4 without liblz4
 */
export function openCodec(id: CodecId): Codec {
  let codec = opened.get(id);
  if (codec === undefined) {
    codec = open(id);
    opened.set(id, codec);
  }
  return codec;
}

/** @throws {CodecUnavailableError} for "lz4" without liblz4 */
export function codecFor(compression: Compression): Codec {
  return openCodec(CODEC_IDS[compression]);
}

/** True if `value` is the name of a compression. */
export function isCompression(value: unknown): value is Compression {
  return typeof value === "string" && Object.hasOwn(CODEC_IDS, value);
}

function open(id: CodecId): Codec {
  switch (id) {
    case CodecId.Raw:
      return RAW;
    case CodecId.Lz4: {
      const library = openLz4();
      if (library instanceof Error) {
        throw new CodecUnavailableError(
          "lz4",
          "install liblz4.so.1 (Debian, Ubuntu: liblz4-1; Fedora, Alpine: lz4-libs), " +
            "or save with zstd",
          { cause: library },
        );
      }
      return nativeCodec({ id, name: "lz4" }, library);
    }
    case CodecId.Zstd: {
      const library = openZstd(ZSTD_LEVEL);
      return library instanceof Error
        ? bunZstd(ZSTD_LEVEL)
        : nativeCodec({ id, name: "zstd" }, library);
    }
  }
}
