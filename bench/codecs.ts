/**
 * Speeds and ratios of the codecs for docs/decisions/codecs.md: `bun bench/codecs.ts`. One thread,
 * medians of 5.
 */
import { bufferAt, mapAnonymous, openLz4, openZstd } from "../ffi/index.ts";
import { bunZstd } from "../src/codec/bun-zstd.ts";
import { type Codec, CodecId } from "../src/codec/codec.ts";
import { nativeCodec } from "../src/codec/native.ts";
import { RAW } from "../src/codec/raw.ts";
import { contentsOf } from "../test/codec/support/contents.ts";

const TOTAL_BYTES = 32 * 2 ** 20;
const ROUNDS = 5;

function codecs(): [string, Codec][] {
  const lz4 = openLz4();
  const list: [string, Codec][] = [["raw", RAW]];
  if (!(lz4 instanceof Error))
    list.push(["lz4", nativeCodec({ id: CodecId.Lz4, name: "lz4" }, lz4)]);
  for (const level of [1, 2, 3]) {
    const zstd = openZstd(level);
    if (!(zstd instanceof Error))
      list.push([`zstd ${level}`, nativeCodec({ id: CodecId.Zstd, name: "zstd" }, zstd)]);
  }
  list.push(["zstd 1, Bun", bunZstd(1)]);
  return list;
}

const source = mapAnonymous(TOTAL_BYTES);
const frames = mapAnonymous(2 * TOTAL_BYTES);
const decoded = mapAnonymous(TOTAL_BYTES);
const contents = new Uint8Array(bufferAt(source, TOTAL_BYTES));

/** GiB of contents a second: the median of the rounds. */
function speed(work: () => void): string {
  const times = Array.from({ length: ROUNDS }, () => {
    const beganMs = performance.now();
    work();
    return performance.now() - beganMs;
  }).sort((a, b) => a - b);
  return (TOTAL_BYTES / 2 ** 30 / (times[ROUNDS >> 1]! / 1000)).toFixed(2);
}

function measure(codec: Codec, frameBytes: number): string {
  const stride = frameBytes * 2;
  const stored: number[] = [];
  const encode = speed(() => {
    for (let i = 0; i * frameBytes < TOTAL_BYTES; i++)
      stored[i] = codec.encode({
        source: source + i * frameBytes,
        lengthBytes: frameBytes,
        destination: frames + i * stride,
        capacityBytes: stride,
      });
  });
  const decode = speed(() => {
    for (let i = 0; i * frameBytes < TOTAL_BYTES; i++) {
      const bytes = codec.decode({
        source: frames + i * stride,
        storedBytes: stored[i]!,
        destination: decoded + i * frameBytes,
        lengthBytes: frameBytes,
      });
      if (bytes !== frameBytes) throw new Error(`Decoded ${bytes} of ${frameBytes} bytes`);
    }
  });
  const ratio = TOTAL_BYTES / stored.reduce((sum, bytes) => sum + bytes, 0);
  return `${ratio.toFixed(2)} | ${encode} | ${decode}`;
}

console.log("| contents | frame KiB | codec | ratio | encode GiB/s | decode GiB/s |");
console.log("|---|---|---|---|---|---|");
for (const kind of ["text", "records", "vectors"] as const) {
  contents.set(contentsOf(kind, TOTAL_BYTES));
  for (const frameKib of [64, 256, 1024, 2048])
    for (const [name, codec] of codecs())
      console.log(`| ${kind} | ${frameKib} | ${name} | ${measure(codec, frameKib * 1024)} |`);
}
