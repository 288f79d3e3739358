/** Contents for tests and benches of codecs: from a seed, and the same on every machine. */

export type ContentsKind = "zeros" | "text" | "records" | "vectors" | "noise";
export const CONTENTS_KINDS: readonly ContentsKind[] = [
  "zeros",
  "text",
  "records",
  "vectors",
  "noise",
];

const WORDS = (
  "page memory load save frame extent unit chunk the of a and to in is that it for with on " +
  "as are be this from"
).split(" ");

/** xorshift32: the next number of a state. */
function next(x: number): number {
  x ^= x << 13;
  x ^= x >>> 17;
  x ^= x << 5;
  return x >>> 0;
}

/**
 * `lengthBytes` of the kind. Other lengths than multiples of 16 are rounded down, then padded with
 * zeros.
 */
export function contentsOf(kind: ContentsKind, lengthBytes: number, seed = 1): Uint8Array {
  const bytes = new Uint8Array(lengthBytes);
  const words = new Uint32Array(bytes.buffer, 0, Math.floor(lengthBytes / 16) * 4);
  let x = next(seed * 0x9e3779b9 || 1);
  if (kind === "text") fillText(bytes, x);
  else if (kind === "noise") for (let i = 0; i < words.length; i++) words[i] = x = next(x);
  else if (kind === "vectors") {
    const floats = new Float32Array(words.buffer, 0, words.length);
    for (let i = 0; i < floats.length; i++) {
      x = next(x);
      floats[i] = (x / 2 ** 32 - 0.5) * 0.8;
    }
  } else if (kind === "records") {
    for (let i = 0; i < words.length; i += 4) {
      x = next(x);
      words[i] = i >> 2;
      words[i + 1] = x % 100_000;
      words[i + 2] = x & 0xff;
    }
  }
  return bytes;
}

function fillText(bytes: Uint8Array, seed: number): void {
  const encoded = WORDS.map((word) => new TextEncoder().encode(`${word} `));
  let x = seed;
  for (let at = 0; at < bytes.length; ) {
    x = next(x);
    const word = encoded[x % encoded.length]!;
    bytes.set(word.subarray(0, bytes.length - at), at);
    at += word.length;
    if (x % 37 === 0 && at < bytes.length) bytes[at++] = x >>> 24;
  }
}
