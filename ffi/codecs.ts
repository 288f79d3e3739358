/**
 * libzstd and liblz4, opened on first use if they are installed.
 *
 * Both work on addresses and write nothing beyond the stated capacity. Every result is a number of
 * bytes, or negative if the library refuses. Sources: zstd.h, lz4.h.
 *
 * The one-shot functions keep no state between calls, so a terminated thread leaks no context.
 * `PGALLOC_HIDE_CODECS=lz4,zstd` hides the libraries, for tests of machines without them.
 */
import { dlopen, FFIType as T } from "bun:ffi";
import { checkInteger } from "./check.ts";

const zstdSymbols = {
  // size_t ZSTD_compress(void *dst, size_t dstCapacity, const void *src, size_t srcSize,
  //   int compressionLevel)
  ZSTD_compress: { args: [T.u64, T.u64, T.u64, T.u64, T.i32], returns: T.i64_fast },
  // size_t ZSTD_decompress(void *dst, size_t dstCapacity, const void *src, size_t compressedSize)
  ZSTD_decompress: { args: [T.u64, T.u64, T.u64, T.u64], returns: T.i64_fast },
  // unsigned long long ZSTD_getFrameContentSize(const void *src, size_t srcSize)
  ZSTD_getFrameContentSize: { args: [T.u64, T.u64], returns: T.i64_fast },
  // size_t ZSTD_findFrameCompressedSize(const void *src, size_t srcSize)
  ZSTD_findFrameCompressedSize: { args: [T.u64, T.u64], returns: T.i64_fast },
} as const;

const lz4Symbols = {
  // int LZ4_compress_default(const char *src, char *dst, int srcSize, int dstCapacity)
  LZ4_compress_default: { args: [T.u64, T.u64, T.i32, T.i32], returns: T.i32 },
  // int LZ4_decompress_safe(const char *src, char *dst, int compressedSize, int dstCapacity)
  LZ4_decompress_safe: { args: [T.u64, T.u64, T.i32, T.i32], returns: T.i32 },
} as const;

/** LZ4_MAX_INPUT_SIZE of lz4.h. */
const LZ4_MAX_BYTES = 0x7e000000;
/** Above this zstd's results would not be safe integers; frames are far smaller. */
const ZSTD_MAX_BYTES = 2 ** 40;
/** zstd_errors.h: the only refusal to compress that means no more than "too large". */
const ZSTD_ERROR_DST_SIZE_TOO_SMALL = -70;

/** Compressed or decompressed bytes go from `source` to `destination`; both are addresses. */
export interface Transcoding {
  readonly source: number;
  readonly sourceBytes: number;
  readonly destination: number;
  /** The most bytes to write at `destination`. */
  readonly capacityBytes: number;
}

/** A library that compresses. */
export interface CodecLibrary {
  /** Bytes written, or -1 if they are more than `capacityBytes`. */
  compress(transcoding: Transcoding): number;
  /**
   * Bytes written: exactly `capacityBytes`, or -1 if the contents are damaged or have another
   * length.
   */
  decompress(transcoding: Transcoding): number;
}

function check(transcoding: Transcoding, maxBytes: number): void {
  checkInteger("source", transcoding.source, 1);
  checkInteger("sourceBytes", transcoding.sourceBytes, 0, maxBytes);
  checkInteger("destination", transcoding.destination, 1);
  checkInteger("capacityBytes", transcoding.capacityBytes, 0, maxBytes);
}

/** liblz4 in its block format, or the reason why it cannot be opened. */
export function openLz4(names = ["liblz4.so.1"]): CodecLibrary | Error {
  const library = open("lz4", names, lz4Symbols);
  if (library instanceof Error) return library;
  return {
    compress(transcoding) {
      check(transcoding, LZ4_MAX_BYTES);
      const { source, sourceBytes, destination, capacityBytes } = transcoding;
      // A result of 0 only means that the block does not fit, because the arguments have been
      // checked.
      const bytes = library.LZ4_compress_default(source, destination, sourceBytes, capacityBytes);
      return bytes > 0 ? bytes : -1;
    },
    decompress(transcoding) {
      check(transcoding, LZ4_MAX_BYTES);
      const { source, sourceBytes, destination, capacityBytes } = transcoding;
      const bytes = library.LZ4_decompress_safe(source, destination, sourceBytes, capacityBytes);
      return bytes === capacityBytes ? bytes : -1;
    },
  };
}

/** libzstd at a compression level, or the reason why it cannot be opened. */
export function openZstd(level: number, names = ["libzstd.so.1"]): CodecLibrary | Error {
  checkInteger("level", level, 1, 19);
  const library = open("zstd", names, zstdSymbols);
  if (library instanceof Error) return library;
  return {
    compress(transcoding) {
      check(transcoding, ZSTD_MAX_BYTES);
      const { source, sourceBytes, destination, capacityBytes } = transcoding;
      const bytes = Number(
        library.ZSTD_compress(destination, capacityBytes, source, sourceBytes, level),
      );
      if (bytes >= 0) return bytes;
      if (bytes === ZSTD_ERROR_DST_SIZE_TOO_SMALL) return -1;
      throw new Error(`ZSTD_compress failed with error ${-bytes} for ${sourceBytes} bytes`);
    },
    decompress(transcoding) {
      check(transcoding, ZSTD_MAX_BYTES);
      const { source, sourceBytes, destination, capacityBytes } = transcoding;
      // The frame declares the expected length. It is checked before a byte is decoded.
      const declaredBytes = Number(library.ZSTD_getFrameContentSize(source, sourceBytes));
      if (declaredBytes !== capacityBytes) return -1;
      if (Number(library.ZSTD_findFrameCompressedSize(source, sourceBytes)) !== sourceBytes)
        return -1;
      const bytes = Number(
        library.ZSTD_decompress(destination, capacityBytes, source, sourceBytes),
      );
      return bytes === capacityBytes ? bytes : -1;
    },
  };
}

function open<Symbols extends Parameters<typeof dlopen>[1]>(
  codec: string,
  names: readonly string[],
  symbols: Symbols,
) {
  if ((process.env["PGALLOC_HIDE_CODECS"] ?? "").split(",").includes(codec))
    return new Error(`PGALLOC_HIDE_CODECS hides ${names.join(", ")}`);
  const failures: unknown[] = [];
  for (const name of names) {
    try {
      return dlopen<Symbols>(name, symbols).symbols;
    } catch (error) {
      failures.push(error);
    }
  }
  return new AggregateError(failures, `Cannot open ${names.join(", ")}`);
}
