/**
 * Table: rows of typed columns in a store's memory. A row is a number from 0 to `length` - 1.
 *
 * | operation         | cost                                                             |
 * |-------------------|------------------------------------------------------------------|
 * | get, set, push    | the row's cells; sometimes a chunk of zeros                      |
 * | swapRemove        | the last row's cells, which move                                 |
 * | column            | a typed array for each chunk, without a copy                     |
 * | truncate          | the rows that go                                                 |
 * | addColumn         | nothing: cells that were never written are zeros                 |
 *
 * Other threads may call `get` at any time, and read whole rows (control.ts). `column` returns the
 * memory itself: while another thread writes it may show half of a vector, a row that has moved, or
 * other contents in a chunk that was freed.
 */
import { INSPECT } from "../core/describe.ts";
import { count, describeStructure } from "./describe.ts";
import { checkInteger, quote, showValue } from "../../ffi/index.ts";
import type { Arena } from "./arena.ts";
import { Cells } from "./cells.ts";
import {
  type CellArray,
  ColumnCodec,
  type ColumnType,
  type RowInput,
  type RowOf,
  type ScalarColumn,
  type Schema,
} from "./column-types.ts";
import { type Column, Columns, MAX_ROWS, TableWord } from "./columns.ts";
import { STRIPE_BITS } from "./control.ts";
import type { HeaderPlace } from "./header.ts";
import type { StoreParts } from "./parts.ts";
import { readRaced } from "./racing.ts";
import { viewRun } from "./run-view.ts";
import { lengthOfBytes } from "./values.ts";

const STRIPE_MASK = (1 << STRIPE_BITS) - 1;
const MAX_CELL_BYTES = 64 * 1024 * 1024;
/** Rows that one operation of `truncate` removes. */
const TRUNCATE_ROWS = 32;

/** A cell that is to be written. */
interface Input {
  readonly column: Column;
  readonly cell: CellArray;
}

/** Rows of typed columns in a store's memory. `Store.table` makes it. */
export class Table<S extends Schema = Schema> {
  readonly name: string;
  private readonly arena: Arena;
  private readonly parts: StoreParts;
  private readonly place: HeaderPlace;
  private readonly columns: Columns;
  private readonly cells: Cells;

  /** For Store. The header and the columns are loaded. */
  constructor(parts: StoreParts, place: HeaderPlace) {
    this.name = place.name;
    this.parts = parts;
    this.arena = parts.arena;
    this.place = place;
    this.columns = new Columns(parts, place);
    this.cells = new Cells(parts, this.columns);
  }

  /** For Store: true if this is the table with that header. */
  isOf(place: HeaderPlace): boolean {
    return place.structure === this.place.structure && place.created === this.place.created;
  }

  private begin(method: string): void {
    this.arena.beginRead(method);
    this.requireName(method);
  }

  /** @throws {DroppedError} */
  private requireName(method: string): void {
    if (this.parts.names.isStale(this.place)) this.parts.names.requireLive(this.place, method);
  }

  [INSPECT](): string {
    return describeStructure("Table", this.name, () => count(this.length, "row"));
  }

  /** Rows. */
  get length(): number {
    this.begin("length");
    return this.columns.length;
  }

  /** The columns and their types, oldest first. */
  get schema(): S {
    this.begin("schema");
    const entries = this.columns.all().map(({ name, codec }) => [name, codec.columnType]);
    return Object.fromEntries(entries) as S;
  }

  private change<T>(method: string, change: () => T): T {
    const result = this.arena.write(method, () => {
      this.requireName(method);
      this.cells.reset();
      this.columns.forgetRetired();
      const value = change();
      this.cells.finish();
      return value;
    });
    this.parts.tidy();
    return result;
  }

  private requireRow(row: number): void {
    const { length } = this.columns;
    if (length === 0)
      throw new RangeError(`The table ${quote(this.name)} has no rows, got row ${showValue(row)}`);
    checkInteger("row", row, 0, length - 1);
  }

  /** Checks the values to write, before anything changes. */
  private inputs(row: RowInput<S>): Input[] {
    if (row === null || typeof row !== "object")
      throw new TypeError(`Expected a row of values, got ${showValue(row)}`);
    const inputs: Input[] = [];
    for (const name of Object.keys(row)) {
      const value: unknown = row[name];
      if (value === undefined) continue;
      const column = this.columns.named(name);
      let cell = column.codec.encode(name, value);
      if (column.codec.isBytes) {
        if (lengthOfBytes(name, cell) > MAX_CELL_BYTES)
          throw new RangeError(`Expected ${name} to have at most ${MAX_CELL_BYTES} bytes`);
        cell = plain(cell as Uint8Array);
      }
      inputs.push({ column, cell });
    }
    return inputs;
  }

  private mark(row: number): void {
    const { control } = this.arena;
    control.mark(control.stripeAt(this.place.structure, row & STRIPE_MASK));
  }

  /**
   * Adds a row; columns without a value are 0 or empty. Returns its number.
   *
   * @throws {TypeError} {RangeError} for bad values, or a full table
   * @throws {OutOfMemoryError} {SyscallError} {NotLoadedError} with nothing changed
   */
  push(row: RowInput<S>): number {
    this.begin("push()");
    const inputs = this.inputs(row);
    return this.change("push()", () => {
      const at = this.columns.length;
      if (at >= MAX_ROWS) throw new RangeError(`A table has at most ${MAX_ROWS} rows`);
      this.mark(at);
      // Removes what an earlier row left there.
      for (const column of this.columns.all())
        if (!inputs.some((input) => input.column === column) && this.columns.locate(column, at))
          this.cells.write(column, at, column.codec.zeros(), true);
      for (const { column, cell } of inputs) this.cells.write(column, at, cell, true);
      this.columns.setHeader(TableWord.Length, at + 1);
      return at;
    });
  }

  /** A copy of a row. @throws {RangeError} if there is none @throws {NotLoadedError} */
  get(row: number): RowOf<S> {
    this.begin("get()");
    const read = () => {
      this.requireName("get()");
      this.requireRow(row);
      const values: Record<string, unknown> = {};
      for (const column of this.columns.all()) values[column.name] = this.cells.read(column, row);
      return values as RowOf<S>;
    };
    return this.arena.mayBeRaced ? readRaced(this.arena, this.stripe(row), read) : read();
  }

  /** A copy of one cell. @throws as `get` */
  cell<K extends keyof S & string>(row: number, name: K): RowOf<S>[K] {
    this.begin("cell()");
    const read = () => {
      this.requireName("cell()");
      this.requireRow(row);
      return this.cells.read(this.columns.named(name), row) as RowOf<S>[K];
    };
    return this.arena.mayBeRaced ? readRaced(this.arena, this.stripe(row), read) : read();
  }

  private stripe(row: number): number {
    if (typeof row !== "number")
      throw new TypeError(`Expected row to be a number, got ${showValue(row)}`);
    return this.arena.control.stripeAt(this.place.structure, row & STRIPE_MASK);
  }

  /** Sets some columns of a row. @throws as `push` */
  set(row: number, values: RowInput<S>): void {
    this.begin("set()");
    const inputs = this.inputs(values);
    this.change("set()", () => {
      this.requireRow(row);
      this.mark(row);
      for (const { column, cell } of inputs) this.cells.write(column, row, cell, false);
    });
  }

  /**
   * Removes a row: the last row takes its number. Returns the number that the moved row had, or -1
   * if none moved.
   *
   * @throws as `push`
   */
  swapRemove(row: number): number {
    return this.change("swapRemove()", () => {
      this.requireRow(row);
      const last = this.columns.length - 1;
      this.mark(row);
      this.mark(last);
      for (const column of this.columns.all()) {
        if (row === last) this.cells.clear(column, row);
        else this.cells.move(column, last, row);
      }
      this.columns.setHeader(TableWord.Length, last);
      this.columns.freeSpare();
      return row === last ? -1 : last;
    });
  }

  /** Removes all rows from `length` on. @throws {RangeError} and as `push` */
  truncate(length: number): void {
    this.arena.batch("truncate()", () => {
      this.begin("truncate()");
      checkInteger("length", length, 0, this.columns.length);
      this.arena.requireAllLoaded();
      const spare = this.columns.firstEmptyChunk;
      this.freeChunk(spare);
      this.freeChunk(spare + 1);
      while (this.columns.length > length) this.removeLast(length);
    });
    this.parts.tidy();
  }

  /** Removes some of the last rows, and the chunk that began with them. */
  private removeLast(length: number): void {
    const bits = this.columns.chunkBits;
    const old = this.columns.length;
    const next = Math.max(length, old - TRUNCATE_ROWS, ((old - 1) >>> bits) << bits);
    this.change("truncate()", () => {
      for (let row = next; row < old; row++) {
        this.mark(row);
        for (const column of this.columns.all()) this.cells.clear(column, row);
      }
      this.columns.setHeader(TableWord.Length, next);
    });
    if (next === (next >>> bits) << bits) this.freeChunk(next >>> bits);
  }

  private freeChunk(chunk: number): void {
    this.change("truncate()", () => this.columns.freeChunk(chunk));
  }

  /** Adds a column, of zeros or empty bytes. @throws {TypeError} {RangeError} and as `push` */
  addColumn<K extends string, T extends ColumnType>(
    name: K,
    type: T,
  ): Table<S & { readonly [P in K]: T }> {
    if (typeof name !== "string")
      throw new TypeError(`Expected a column's name to be a string, got ${showValue(name)}`);
    const codec = ColumnCodec.of(name, type);
    this.change("addColumn()", () => {
      if (this.columns.all().some((column) => column.name === name))
        throw new RangeError(`The table ${JSON.stringify(this.name)} has a column ${name}`);
      this.arena.control.markStructure(this.place.structure);
      this.columns.add(name, codec);
    });
    return this as never;
  }

  /**
   * A column of numbers or vectors as it is in memory: a typed array for each chunk, row after row.
   * Valid until the next write to the store. Later the arrays may show anything that the store
   * holds, so a scan beside a writer must check what it found with `get`. A change to them is a
   * write, and needs `store.batch`.
   *
   * @throws {TypeError} for a column of bytes
   * @throws {NotLoadedError}
   */
  column<K extends keyof S & string>(name: K): ScalarColumn<S[K]>[] {
    this.begin("column()");
    const { columns, arena } = this;
    const column = columns.named(name);
    const { codec } = column;
    if (codec.isBytes) throw new TypeError(`Expected a column of numbers, got ${name} of bytes`);
    const rowsPerChunk = 2 ** columns.chunkBits;
    const perRow = Math.max(1, codec.length);
    const arrays: unknown[] = [];
    for (let first = 0, { length } = columns; first < length; first += rowsPerChunk) {
      const count = Math.min(rowsPerChunk, length - first) * perRow;
      const address = columns.chunk(column, first / rowsPerChunk);
      if (address === 0) arrays.push(new codec.array!(count));
      else
        arrays.push(
          viewRun(arena, address, columns.chunkPages(column), codec.array as never, count),
        );
    }
    return arrays as ScalarColumn<S[K]>[];
  }

  /** For Store. Removes the table: first its rows by operations of their own, then its name. */
  drop(): void {
    const { parts, place } = this;
    this.truncate(0);
    this.change("drop()", () => {
      parts.arena.control.markStructure(place.structure);
      this.columns.freeRecords();
      parts.names.remove(place);
      parts.names.free(place);
    });
  }
}

/** A plain array over the same bytes: a subclass may report anything. */
function plain(bytes: Uint8Array): Uint8Array {
  const isPlain = Object.getPrototypeOf(bytes) === Uint8Array.prototype;
  if (isPlain && !Object.hasOwn(bytes, "length")) return bytes;
  return new Uint8Array(bytes);
}
