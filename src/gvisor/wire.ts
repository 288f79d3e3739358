/**
 * Protobuf's wire format, as far as gVisor's metadata needs it: varints, tags, length-delimited
 * fields.
 *
 * A 64-bit value is a number below 2^53, or `U64_MAX` (Infinity) for 2^64-1, gVisor's "to the end
 * of everything". A value in between is neither a file offset nor a reference count; it is refused
 * where it is *used*, since a field that is skipped may hold anything. A varint is read as two
 * 32-bit halves, so that no BigInt is made.
 *
 * Invariant of the reader: position <= limit <= bytes.length, whatever the bytes say. See
 * https://protobuf.dev/programming-guides/encoding/.
 */
import { CorruptCheckpointError } from "../errors/errors.ts";

/** 2^64-1, the one value above 2^53 that a file may hold. */
export const U64_MAX = Number.POSITIVE_INFINITY;

const TWO_32 = 2 ** 32;
/** Strict: two different texts must not become equal. */
const textDecoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const FIELD_NUMBER_MAX = 2 ** 29 - 1;

/** The low three bits of a tag. */
export const WireType = { varint: 0, fixed64: 1, lengthDelimited: 2, fixed32: 5 } as const;

/** The origin of the bytes, for error messages. */
export interface WirePlace {
  readonly path?: string;
  readonly section?: string;
  /** Offset of the first byte in the file at `path`. */
  readonly offset?: number;
}

export class WireReader {
  /** Index of the next byte. */
  position: number;
  /** Reading stops here: the end of the innermost message. */
  limit: number;
  /** The halves of the last varint, as signed 32-bit integers. */
  private low = 0;
  private high = 0;

  constructor(
    private readonly bytes: Uint8Array,
    private readonly place: WirePlace = {},
  ) {
    this.position = 0;
    this.limit = bytes.length;
  }

  get done(): boolean {
    return this.position >= this.limit;
  }

  /** An error that names the byte at `position`. */
  corrupt(message: string, position = this.position): CorruptCheckpointError {
    return new CorruptCheckpointError(message, {
      ...this.place,
      offset: (this.place.offset ?? 0) + position,
    });
  }

  private readVarint(): void {
    const { bytes, limit } = this;
    const first = this.position;
    let position = first;
    // Tags, lengths and small numbers: most varints are one byte.
    if (position < limit && bytes[position]! < 0x80) {
      this.low = bytes[position]!;
      this.high = 0;
      this.position = position + 1;
      return;
    }
    let low = 0;
    let high = 0;
    for (let shift = 0; ; shift += 7) {
      if (position >= limit) throw this.corrupt("Varint is cut off", first);
      const byte = bytes[position++]!;
      const bits = byte & 0x7f;
      if (shift < 28) {
        low |= bits << shift;
      } else if (shift === 28) {
        low |= bits << 28;
        high = bits >>> 4;
      } else {
        // The tenth byte has room for one bit.
        if (shift === 63 && byte > 1) throw this.corrupt("Varint exceeds 64 bits", first);
        high |= bits << (shift - 32);
      }
      if (byte < 0x80) break;
    }
    this.low = low;
    this.high = high;
    this.position = position;
  }

  /** @throws {CorruptCheckpointError} for 2^53 and above, except 2^64-1, which is `U64_MAX` */
  readU64(): number {
    const first = this.position;
    this.readVarint();
    const high = this.high >>> 0;
    if (high < 0x200000) return high * TWO_32 + (this.low >>> 0);
    if (high === 0xffffffff && this.low === -1) return U64_MAX;
    throw this.corrupt(
      `Value 0x${high.toString(16)}${(this.low >>> 0).toString(16).padStart(8, "0")} is out of ` +
        "range",
      first,
    );
  }

  /** The low 32 bits of the value, as protobuf prescribes. */
  readU32(): number {
    this.readVarint();
    return this.low >>> 0;
  }

  readBool(): 0 | 1 {
    this.readVarint();
    return (this.low | this.high) === 0 ? 0 : 1;
  }

  /** The raw halves of a 64-bit varint, unsigned, for formats that put a flag into the top bit. */
  readHalves(): { low: number; high: number } {
    this.readVarint();
    return { low: this.low >>> 0, high: this.high >>> 0 };
  }

  /** field number << 3 | wire type. Both are valid; groups are refused. */
  readTag(): number {
    const first = this.position;
    this.readVarint();
    const tag = this.low >>> 0;
    const field = tag >>> 3;
    if (this.high !== 0 || field === 0 || field > FIELD_NUMBER_MAX)
      throw this.corrupt("Field number is out of range", first);
    const type = tag & 7;
    if (type === 3 || type === 4) throw this.corrupt("Groups are not supported", first);
    if (type > 5) throw this.corrupt(`Wire type ${type} does not exist`, first);
    return tag;
  }

  /** Skips the value of an unknown field. */
  skip(tag: number): void {
    switch (tag & 7) {
      case WireType.varint:
        this.readVarint();
        break;
      case WireType.fixed64:
        this.advance(8);
        break;
      case WireType.lengthDelimited:
        this.advance(this.readLength());
        break;
      case WireType.fixed32:
        this.advance(4);
        break;
      default:
        throw this.corrupt(`Wire type ${tag & 7} does not exist`);
    }
  }

  /** Enters a length-delimited message; pass the result to `leave` once `done`. */
  enter(): number {
    const lengthBytes = this.readLength();
    const outer = this.limit;
    this.limit = this.position + lengthBytes;
    return outer;
  }

  leave(outer: number): void {
    this.limit = outer;
  }

  /** A length, then as many bytes of UTF-8. */
  readText(): string {
    const first = this.position;
    const lengthBytes = this.readLength();
    const bytes = this.bytes.subarray(this.position, this.position + lengthBytes);
    this.position += lengthBytes;
    try {
      return textDecoder.decode(bytes);
    } catch {
      throw this.corrupt("Text is not UTF-8", first);
    }
  }

  private readLength(): number {
    const first = this.position;
    this.readVarint();
    const left = this.limit - this.position;
    if (this.high !== 0 || this.low >>> 0 > left)
      throw this.corrupt(`Field is cut off: ${left} bytes are left`, first);
    return this.low >>> 0;
  }

  private advance(lengthBytes: number): void {
    if (lengthBytes > this.limit - this.position) {
      throw this.corrupt(
        `Field of ${lengthBytes} bytes is cut off: ${this.limit - this.position} bytes are left`,
      );
    }
    this.position += lengthBytes;
  }
}

/** Bytes that `WireWriter.varint(value)` takes. */
export function varintLengthBytes(value: number): number {
  if (value === U64_MAX) return 10;
  let lengthBytes = 1;
  for (let rest = value; rest >= 0x80; rest = Math.floor(rest / 0x80)) lengthBytes++;
  return lengthBytes;
}

/** Writes into a buffer of the right size, which the caller has computed. */
export class WireWriter {
  position = 0;

  constructor(readonly bytes: Uint8Array) {}

  /** @throws {RangeError} unless `value` is an integer in [0, 2^53) or `U64_MAX` */
  varint(value: number): void {
    if (value === U64_MAX) {
      this.bytes.fill(0xff, this.position, this.position + 9);
      this.position += 9;
      this.bytes[this.position++] = 1;
      return;
    }
    if (!Number.isSafeInteger(value) || value < 0)
      throw new RangeError(`Expected value to be an integer in [0, 2^53), got ${value}`);
    let rest = value;
    for (; rest > 0x7fffffff; rest = Math.floor(rest / 0x80))
      this.bytes[this.position++] = (rest % 0x80) | 0x80;
    for (; rest >= 0x80; rest >>>= 7) this.bytes[this.position++] = (rest & 0x7f) | 0x80;
    this.bytes[this.position++] = rest;
  }

  /** `value` with the top bit of 64 set; `value` must be below 2^28. */
  flaggedVarint(value: number): void {
    for (let i = 0, rest = value; i < 9; i++, rest >>>= 7)
      this.bytes[this.position++] = (rest & 0x7f) | 0x80;
    this.bytes[this.position++] = 1;
  }

  raw(bytes: Uint8Array): void {
    this.bytes.set(bytes, this.position);
    this.position += bytes.byteLength;
  }

  /** A scalar field; writes nothing for proto3's default. `tag` must be below 0x80. */
  scalar(tag: number, value: number): void {
    if (value === 0) return;
    this.bytes[this.position++] = tag;
    this.varint(value);
  }
}

/** Bytes that `WireWriter.scalar` takes for `value`. */
export function scalarLengthBytes(value: number): number {
  return value === 0 ? 0 : 1 + varintLengthBytes(value);
}
