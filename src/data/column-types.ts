/** Types of a table's columns: numbers, vectors of numbers, bytes. */
import { checkInteger, showValue } from "../../ffi/index.ts";
import { lengthOfBytes } from "./values.ts";

export type NumberType = "i8" | "u8" | "i16" | "u16" | "i32" | "u32" | "f32" | "f64";
export type BigType = "i64" | "u64";
export type ScalarType = NumberType | BigType;
/** A number, a vector of `length` numbers, or bytes of any length up to 64 MiB. */
export type ColumnType = ScalarType | "bytes" | readonly [type: ScalarType, length: number];
export type Schema = Readonly<Record<string, ColumnType>>;

export interface ArrayOf {
  i8: Int8Array;
  u8: Uint8Array;
  i16: Int16Array;
  u16: Uint16Array;
  i32: Int32Array;
  u32: Uint32Array;
  f32: Float32Array;
  f64: Float64Array;
  i64: BigInt64Array;
  u64: BigUint64Array;
}

/** What `get` returns for a column. */
export type CellOf<T extends ColumnType> = T extends readonly [infer S extends ScalarType, number]
  ? ArrayOf[S]
  : T extends "bytes"
    ? Uint8Array<ArrayBuffer>
    : T extends BigType
      ? bigint
      : number;

/** What `push` and `set` take for a column. */
export type InputOf<T extends ColumnType> = T extends readonly [infer S extends ScalarType, number]
  ? ArrayOf[S] | readonly (S extends BigType ? bigint : number)[]
  : T extends "bytes"
    ? Uint8Array
    : CellOf<T>;

export type RowOf<S extends Schema> = { -readonly [K in keyof S]: CellOf<S[K]> };
export type RowInput<S extends Schema> = { readonly [K in keyof S]?: InputOf<S[K]> };
export type ScalarColumn<T extends ColumnType> = T extends readonly [
  infer S extends ScalarType,
  number,
]
  ? ArrayOf[S]
  : T extends ScalarType
    ? ArrayOf[T]
    : never;

/** Part of the stored format: so is their order. */
const SCALARS: readonly ScalarType[] = [
  "i8",
  "u8",
  "i16",
  "u16",
  "i32",
  "u32",
  "f32",
  "f64",
  "i64",
  "u64",
];
const BYTES_CODE = 100;
const ARRAYS = [
  Int8Array,
  Uint8Array,
  Int16Array,
  Uint16Array,
  Int32Array,
  Uint32Array,
  Float32Array,
  Float64Array,
  BigInt64Array,
  BigUint64Array,
] as const;
const RANGES: Readonly<Record<string, readonly [number, number]>> = {
  i8: [-0x80, 0x7f],
  u8: [0, 0xff],
  i16: [-0x8000, 0x7fff],
  u16: [0, 0xffff],
  i32: [-0x8000_0000, 0x7fff_ffff],
  u32: [0, 0xffff_ffff],
};

export const CELL_BYTES = 8;
export const MAX_VECTOR_LENGTH = 65_536;

/** Numbers of a cell. */
export type CellArray = ArrayOf[ScalarType];
type CellArrayConstructor = new (
  buffer: ArrayBufferLike | number | ArrayLike<never>,
  at?: number,
  length?: number,
) => CellArray;

/** A column's type, as it is stored and used. */
export class ColumnCodec {
  readonly type: ScalarType | "bytes";
  /** Numbers in a vector; 0 for a cell that is not a vector. */
  readonly length: number;
  readonly code: number;
  /** Of a cell. Cells of bytes refer to a block. */
  readonly widthBytes: number;
  readonly array: CellArrayConstructor | undefined;

  private constructor(code: number, length: number) {
    this.code = code;
    this.length = length;
    const array = ARRAYS[code];
    this.type = array === undefined ? "bytes" : SCALARS[code]!;
    this.array = array as unknown as CellArrayConstructor;
    this.widthBytes =
      array === undefined ? CELL_BYTES : array.BYTES_PER_ELEMENT * Math.max(1, length);
  }

  /** @throws {TypeError} {RangeError} */
  static of(name: string, type: ColumnType): ColumnCodec {
    if (type === "bytes") return new ColumnCodec(BYTES_CODE, 0);
    const [scalar, length] = Array.isArray(type) ? type : [type as ScalarType, 0];
    const code = SCALARS.indexOf(scalar);
    if (code < 0)
      throw new TypeError(
        `Expected the type of column ${name} to be "bytes", a scalar (${SCALARS.join(", ")}) or ` +
          `[scalar, length], got ${showValue(type)}`,
      );
    if (Array.isArray(type))
      checkInteger(`the length of column ${name}`, length, 1, MAX_VECTOR_LENGTH);
    return new ColumnCodec(code, length);
  }

  /** The stored type, or undefined if there is none of that kind. */
  static stored(code: number, length: number): ColumnCodec | undefined {
    const isScalar = ARRAYS[code] !== undefined && length >= 0 && length <= MAX_VECTOR_LENGTH;
    if (!isScalar && (code !== BYTES_CODE || length !== 0)) return undefined;
    return new ColumnCodec(code, length);
  }

  get isBytes(): boolean {
    return this.type === "bytes";
  }

  /** The type as a program writes it. */
  get columnType(): ColumnType {
    if (this.type === "bytes" || this.length === 0) return this.type;
    return [this.type, this.length];
  }

  toString(): string {
    return this.length === 0 ? this.type : `${this.type}[${this.length}]`;
  }

  /**
   * What to write for a value: a copy of its numbers, or the bytes themselves.
   *
   * @throws {TypeError} {RangeError}
   */
  encode(name: string, value: unknown): CellArray {
    if (this.isBytes) {
      lengthOfBytes(name, value);
      return value as Uint8Array;
    }
    return this.length === 0 ? this.encodeNumbers(name, [value]) : this.encodeVector(name, value);
  }

  private encodeVector(name: string, value: unknown): CellArray {
    const isArray = ArrayBuffer.isView(value) || Array.isArray(value);
    if (!isArray) throw new TypeError(`Expected ${name} to be an array, got ${showValue(value)}`);
    const given = value as unknown as ArrayLike<unknown>;
    if (given.length !== this.length)
      throw new RangeError(`Expected ${name} to have ${this.length} numbers, got ${given.length}`);
    // A copy: a subclass may report any length.
    const array =
      value instanceof this.array!
        ? new this.array!(value as never)
        : this.encodeNumbers(name, Array.from(given));
    if (array.length !== this.length)
      throw new RangeError(`Expected ${name} to have ${this.length} numbers, got ${array.length}`);
    return array;
  }

  private encodeNumbers(name: string, values: readonly unknown[]): CellArray {
    const isBig = this.type === "i64" || this.type === "u64";
    const range = RANGES[this.type];
    for (const value of values) {
      if (typeof value !== (isBig ? "bigint" : "number"))
        throw new TypeError(`Expected ${name} to be of type ${this.type}, got ${showValue(value)}`);
      if (range !== undefined) checkInteger(name, value as number, range[0], range[1]);
    }
    const array = new this.array!(values as never);
    if (isBig && values.some((value, i) => array[i] !== value))
      throw new RangeError(`Expected ${name} to be of type ${this.type}, got ${showValue(values)}`);
    return array;
  }

  /** A cell of numbers in memory. It is aligned: chunks begin pages, and have whole cells. */
  viewAt(bytes: Uint8Array, byte: number): CellArray {
    return new this.array!(bytes.buffer, byte, Math.max(1, this.length));
  }

  /** A cell that was never written. */
  zeros(): CellArray {
    return this.isBytes ? new Uint8Array(0) : new this.array!(Math.max(1, this.length));
  }

  /** The value of a cell of numbers, given them. */
  decode(array: CellArray): unknown {
    return this.length === 0 ? array[0] : array;
  }
}
