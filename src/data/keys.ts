/**
 * Keys of maps as bytes: strings as UTF-8, bytes as they are, numbers in little endian. A key is
 * put into scratch memory as whole words, padded with zeros, and hashed on the way, so that a
 * look-up compares words.
 *
 * The hash is HalfSipHash-1-3 (Aumasson and Bernstein; Linux uses it for its tables) with a random
 * key per store: without that key it is not possible to choose keys that collide.
 */
import { checkInteger, showValue } from "../../ffi/index.ts";

export type KeyType = "string" | "bytes" | "u32" | "i32" | "f64" | "u64" | "i64";

/** Part of the stored format: so is their order. */
export const KEY_TYPES: readonly KeyType[] = ["string", "bytes", "u32", "i32", "f64", "u64", "i64"];

export interface KeyOf {
  string: string;
  bytes: Uint8Array;
  u32: number;
  i32: number;
  f64: number;
  u64: bigint;
  i64: bigint;
}

export const MAX_KEY_BYTES = 65_535;
const SCRATCH_WORDS = 16_384;
const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

/** The key under work. Its memory does not move. */
const scratch = new SharedArrayBuffer(4 * SCRATCH_WORDS);
const words = new Int32Array(scratch);
const bytes = new Uint8Array(scratch);
const float = new Float64Array(1);
const floatWords = new Int32Array(float.buffer);
const big = new BigUint64Array(1);
const bigWords = new Int32Array(big.buffer);

/** Puts keys of one type into `words`, and takes them out again. */
export class Keys {
  readonly type: KeyType;
  /** The key that was put last. */
  readonly words = words;
  lengthBytes = 0;
  hash = 0;
  private readonly seedLow: number;
  private readonly seedHigh: number;

  constructor(type: KeyType, seedLow: number, seedHigh: number) {
    this.type = type;
    this.seedLow = seedLow;
    this.seedHigh = seedHigh;
  }

  /** @throws {TypeError} {RangeError} if it is not a key of this type */
  put(key: unknown): void {
    if (typeof key === "string" && this.type === "string") this.putString(key);
    else this.putOther(key);
    this.hash = this.hashWords((this.lengthBytes + 3) >>> 2);
  }

  /** Four characters at a time, while they are ASCII. */
  private putString(key: string): void {
    const { length } = key;
    const whole = length & ~3;
    if (length > MAX_KEY_BYTES) throwTooLong(length);
    let i = 0;
    for (; i < whole; i += 4) {
      const a = key.charCodeAt(i);
      const b = key.charCodeAt(i + 1);
      const c = key.charCodeAt(i + 2);
      const d = key.charCodeAt(i + 3);
      if ((a | b | c | d) > 0x7f) {
        this.putText(key);
        return;
      }
      words[i >> 2] = a | (b << 8) | (c << 16) | (d << 24);
    }
    if (i < length) {
      let word = 0;
      for (let shift = 0; i < length; i++, shift += 8) {
        const code = key.charCodeAt(i);
        if (code > 0x7f) {
          this.putText(key);
          return;
        }
        word |= code << shift;
      }
      words[whole >> 2] = word;
    }
    this.lengthBytes = length;
  }

  private putText(key: string): void {
    if (!key.isWellFormed())
      throw new TypeError(`Expected a key without lone surrogates, got ${JSON.stringify(key)}`);
    const encoded = encoder.encode(key);
    if (encoded.length > MAX_KEY_BYTES) throwTooLong(encoded.length);
    this.putBytes(encoded, encoded.length);
  }

  private putBytes(key: Uint8Array, length: number): void {
    words[length >>> 2] = 0;
    bytes.set(key);
    this.lengthBytes = length;
  }

  private putOther(key: unknown): void {
    switch (this.type) {
      case "string":
        throw new TypeError(`Expected key to be a string, got ${showValue(key)}`);
      case "bytes": {
        if (!(key instanceof Uint8Array))
          throw new TypeError(`Expected key to be a Uint8Array, got ${showValue(key)}`);
        // A copy: a subclass may report any length.
        const copy = Uint8Array.prototype.slice.call(key, 0, MAX_KEY_BYTES + 1);
        if (copy.length > MAX_KEY_BYTES) throwTooLong(copy.length);
        this.putBytes(copy, copy.length);
        return;
      }
      case "u32":
        checkInteger("key", key as number, 0, 0xffff_ffff);
        words[0] = key as number;
        this.lengthBytes = 4;
        return;
      case "i32":
        checkInteger("key", key as number, -0x8000_0000, 0x7fff_ffff);
        words[0] = key as number;
        this.lengthBytes = 4;
        return;
      case "f64":
        this.putFloat(key);
        return;
      default:
        this.putBig(key);
        return;
    }
  }

  /** As in a Map: 0 equals -0, and NaN equals NaN. */
  private putFloat(key: unknown): void {
    if (typeof key !== "number")
      throw new TypeError(`Expected key to be a number, got ${showValue(key)}`);
    float[0] = key === 0 ? 0 : key;
    const isNumber = !Number.isNaN(key);
    words[0] = isNumber ? floatWords[0]! : 0;
    words[1] = isNumber ? floatWords[1]! : 0x7ff8_0000;
    this.lengthBytes = 8;
  }

  private putBig(key: unknown): void {
    if (typeof key !== "bigint")
      throw new TypeError(`Expected key to be a bigint, got ${showValue(key)}`);
    const isIn =
      this.type === "u64" ? BigInt.asUintN(64, key) === key : BigInt.asIntN(64, key) === key;
    if (!isIn) throw new RangeError(`Expected key to be of type ${this.type}, got ${key}`);
    big[0] = BigInt.asUintN(64, key);
    words[0] = bigWords[0]!;
    words[1] = bigWords[1]!;
    this.lengthBytes = 8;
  }

  private hashWords(count: number): number {
    let v0 = this.seedLow;
    let v1 = this.seedHigh;
    let v2 = 0x6c796765 ^ v0;
    let v3 = 0x74656462 ^ v1;
    for (let i = 0; i <= count; i++) {
      // The length comes last.
      const word = i < count ? words[i]! : this.lengthBytes;
      v3 ^= word;
      v0 = (v0 + v1) | 0;
      v1 = ((v1 << 5) | (v1 >>> 27)) ^ v0;
      v0 = (v0 << 16) | (v0 >>> 16);
      v2 = (v2 + v3) | 0;
      v3 = ((v3 << 8) | (v3 >>> 24)) ^ v2;
      v0 = (v0 + v3) | 0;
      v3 = ((v3 << 7) | (v3 >>> 25)) ^ v0;
      v2 = (v2 + v1) | 0;
      v1 = ((v1 << 13) | (v1 >>> 19)) ^ v2;
      v2 = (v2 << 16) | (v2 >>> 16);
      v0 ^= word;
    }
    v2 ^= 0xff;
    for (let i = 0; i < 3; i++) {
      v0 = (v0 + v1) | 0;
      v1 = ((v1 << 5) | (v1 >>> 27)) ^ v0;
      v0 = (v0 << 16) | (v0 >>> 16);
      v2 = (v2 + v3) | 0;
      v3 = ((v3 << 8) | (v3 >>> 24)) ^ v2;
      v0 = (v0 + v3) | 0;
      v3 = ((v3 << 7) | (v3 >>> 25)) ^ v0;
      v2 = (v2 + v1) | 0;
      v1 = ((v1 << 13) | (v1 >>> 19)) ^ v2;
      v2 = (v2 << 16) | (v2 >>> 16);
    }
    return v1 ^ v3;
  }

  /** The key whose bytes those are. Precondition: they are as long as keys of this type. */
  decode(from: Uint8Array, start: number, end: number): unknown {
    if (this.type === "string") return decoder.decode(from.subarray(start, end));
    if (this.type === "bytes") return from.slice(start, end);
    const view = new DataView(from.buffer, from.byteOffset + start, end - start);
    if (this.type === "u32") return view.getUint32(0, true);
    if (this.type === "i32") return view.getInt32(0, true);
    if (this.type === "f64") return view.getFloat64(0, true);
    return this.type === "u64" ? view.getBigUint64(0, true) : view.getBigInt64(0, true);
  }

  /** Bytes that keys of this type have, or -1 if any number. */
  get fixedBytes(): number {
    if (this.type === "string" || this.type === "bytes") return -1;
    return this.type === "u32" || this.type === "i32" ? 4 : 8;
  }
}

function throwTooLong(length: number): never {
  throw new RangeError(`Expected a key of at most ${MAX_KEY_BYTES} bytes, got ${length}`);
}
