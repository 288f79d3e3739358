/**
 * The columns of a table: their records, and the chunks that hold their cells.
 *
 * A chunk is 2^n rows. (It has nothing to do with the chunks of a MemoryFile.) Each column has a
 * run of pages for each chunk, which the column's list names. 0 in the list stands for a chunk that
 * was never written, whose cells are zero. So a table grows without copies of cells, and a new
 * column costs nothing.
 *
 *   header     columns · page address of their records · rows · bits of a chunk's rows
 *   record     type · length of a vector · page address of the list · entries of the list · name
 *   list       a page address for each chunk
 *   cell       little endian numbers; or, for bytes, the address of a block as in a map's slot
 */
import { quote, showValue } from "../../ffi/index.ts";
import { CorruptStoreError } from "../errors/store.ts";
import type { Arena } from "./arena.ts";
import { ColumnCodec, type ColumnType } from "./column-types.ts";
import type { HeaderPlace } from "./header.ts";
import { STORE_PAGE, WINDOW_PAGE_BITS, WINDOW_PAGE_MASK, WORDS_PER_PAGE } from "./layout.ts";
import type { StoreParts } from "./parts.ts";

/** Words of a table's header after those of HeaderWord. */
export const TableWord = { Columns: 3, Records: 4, Length: 5, ChunkBits: 6, Layout: 7 } as const;
const RecordWord = { Code: 0, Length: 1, List: 2, ListPages: 3, NameBytes: 4, Name: 5 } as const;
const RECORD_WORDS = 32;
const MAX_COLUMN_NAME = 4 * (RECORD_WORDS - RecordWord.Name);
export const MAX_COLUMNS = 64;
const RECORD_PAGES = (MAX_COLUMNS * RECORD_WORDS) / WORDS_PER_PAGE;
const MAX_CHUNK_BITS = 12;
const MIN_CHUNK_BITS = 4;
/** The most bytes of the widest column's chunk, unless 2^MIN_CHUNK_BITS rows are more. */
const CHUNK_BYTES = 512 * 1024;
const MAX_CHUNK_BYTES = 64 * 1024 * 1024;
export const MAX_ROWS = 2 ** 31 - 1;

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

export interface Column {
  readonly name: string;
  readonly codec: ColumnCodec;
  /** The word of its record in the records' window. */
  readonly record: number;
}

export class Columns {
  readonly place: HeaderPlace;
  /** Where `locate` found a cell: in window `window`, from byte `byte` on. */
  window = 0;
  byte = 0;
  private readonly arena: Arena;
  private readonly parts: StoreParts;
  private known: readonly Column[] = [];
  private layout = -1;

  constructor(parts: StoreParts, place: HeaderPlace) {
    this.arena = parts.arena;
    this.parts = parts;
    this.place = place;
  }

  header(word: number): number {
    return this.arena.words[this.place.window]![this.place.word + word]!;
  }

  setHeader(word: number, value: number): void {
    this.arena.set(this.place.window, this.place.word + word, value);
  }

  get length(): number {
    const length = this.header(TableWord.Length);
    if (length < 0) throw new CorruptStoreError(`A table has ${length} rows`);
    return length;
  }

  get chunkBits(): number {
    const bits = this.header(TableWord.ChunkBits);
    if (bits < 0 || bits > MAX_CHUNK_BITS)
      throw new CorruptStoreError(`A table has chunks of 2^${bits} rows`);
    return bits;
  }

  /** An empty table. Within an operation. @throws {RangeError} {TypeError} */
  create(codecs: ReadonlyMap<string, ColumnCodec>): void {
    const widest = Math.max(...[...codecs.values()].map(({ widthBytes }) => widthBytes));
    const bits = Math.floor(Math.log2(CHUNK_BYTES / widest));
    const records = this.parts.pages.allocate(RECORD_PAGES);
    const words = this.arena.words[records >>> WINDOW_PAGE_BITS]!;
    const at = (records & WINDOW_PAGE_MASK) * WORDS_PER_PAGE;
    words.fill(0, at, at + RECORD_PAGES * WORDS_PER_PAGE);
    this.setHeader(TableWord.Records, records);
    this.setHeader(TableWord.ChunkBits, Math.max(MIN_CHUNK_BITS, Math.min(MAX_CHUNK_BITS, bits)));
    for (const [name, codec] of codecs) this.add(name, codec);
  }

  /** Adds a column of zeros. Within an operation. @throws {RangeError} {TypeError} */
  add(name: string, codec: ColumnCodec): void {
    const { arena } = this;
    const bytes = encoder.encode(name);
    if (bytes.length < 1 || bytes.length > MAX_COLUMN_NAME || !name.isWellFormed())
      throw new RangeError(
        `Expected a column's name of 1 to ${MAX_COLUMN_NAME} bytes, got ${JSON.stringify(name)}`,
      );
    const count = this.header(TableWord.Columns);
    if (count >= MAX_COLUMNS) throw new RangeError(`A table has at most ${MAX_COLUMNS} columns`);
    if (codec.widthBytes * 2 ** this.chunkBits > MAX_CHUNK_BYTES)
      throw new RangeError(`Column ${name} is too wide for chunks of ${2 ** this.chunkBits} rows`);
    const records = this.header(TableWord.Records);
    const window = records >>> WINDOW_PAGE_BITS;
    const at = (records & WINDOW_PAGE_MASK) * WORDS_PER_PAGE + RECORD_WORDS * count;
    arena.get(window, at + RECORD_WORDS - 1);
    arena.bytes[window]!.set(bytes, 4 * (at + RecordWord.Name));
    const record = [codec.code, codec.length, 0, 0, bytes.length];
    for (const [word, value] of record.entries()) arena.set(window, at + word, value);
    this.setHeader(TableWord.Columns, count + 1);
    // A failure does not undo it: no version stands for two layouts.
    const { window: headerWindow, word } = this.place;
    arena.words[headerWindow]![word + TableWord.Layout]! += 1;
  }

  /**
   * All columns, in the order in which they were made. @throws {CorruptStoreError} {NotLoadedError}
   */
  all(): readonly Column[] {
    const layout = this.header(TableWord.Layout);
    if (layout === this.layout) return this.known;
    const count = this.header(TableWord.Columns);
    if (count < 0 || count > MAX_COLUMNS)
      throw new CorruptStoreError(`A table has ${count} columns`);
    const records = this.header(TableWord.Records);
    const window = records >>> WINDOW_PAGE_BITS;
    const first = (records & WINDOW_PAGE_MASK) * WORDS_PER_PAGE;
    const columns = Array.from({ length: count }, (_, i) =>
      this.readRecord(window, first + RECORD_WORDS * i),
    );
    if (new Set(columns.map(({ name }) => name)).size < count)
      throw new CorruptStoreError("A table has two columns of one name");
    this.known = columns;
    this.layout = layout;
    return columns;
  }

  private readRecord(window: number, at: number): Column {
    const { arena } = this;
    const nameBytes = arena.get(window, at + RecordWord.NameBytes);
    arena.get(window, at + RECORD_WORDS - 1);
    if (window === 0 || nameBytes < 1 || nameBytes > MAX_COLUMN_NAME)
      throw new CorruptStoreError(`A column's name has ${nameBytes} bytes`);
    const start = 4 * (at + RecordWord.Name);
    const name = decoder.decode(arena.bytes[window]!.subarray(start, start + nameBytes));
    const code = arena.get(window, at + RecordWord.Code);
    const codec = ColumnCodec.stored(code, arena.get(window, at + RecordWord.Length));
    if (codec === undefined) throw new CorruptStoreError(`Column ${name} has no known type`);
    return { name, codec, record: at };
  }

  /** The column of that name. @throws {RangeError} if there is none */
  named(name: string): Column {
    for (const column of this.all()) if (column.name === name) return column;
    throw new RangeError(
      `The table ${JSON.stringify(this.place.name)} has no column ${quote(String(name))}`,
    );
  }

  private get recordsWindow(): number {
    return this.header(TableWord.Records) >>> WINDOW_PAGE_BITS;
  }

  /**
   * Page address of a column's chunk, or 0 if it is all zeros. @throws {CorruptStoreError}
   * {NotLoadedError}
   */
  chunk({ record }: Column, chunk: number): number {
    const { arena } = this;
    const window = this.recordsWindow;
    const pages = arena.get(window, record + RecordWord.ListPages);
    if (chunk >= pages * WORDS_PER_PAGE) return 0;
    const list = arena.get(window, record + RecordWord.List);
    const at = (list & WINDOW_PAGE_MASK) * WORDS_PER_PAGE + chunk;
    return arena.get(list >>> WINDOW_PAGE_BITS, at);
  }

  /** Pages of a column's chunk. */
  chunkPages({ codec }: Column): number {
    return Math.ceil((codec.widthBytes * 2 ** this.chunkBits) / STORE_PAGE);
  }

  /**
   * Finds a row's cell. False if it is in a chunk that was never written.
   * @throws {CorruptStoreError} {NotLoadedError}
   */
  locate(column: Column, row: number): boolean {
    const { arena } = this;
    const bits = this.chunkBits;
    const address = this.chunk(column, row >>> bits);
    if (address === 0) return false;
    const { widthBytes } = column.codec;
    const window = address >>> WINDOW_PAGE_BITS;
    const byte = (address & WINDOW_PAGE_MASK) * STORE_PAGE + (row & ((1 << bits) - 1)) * widthBytes;
    const bytes = arena.bytes[window];
    if (window === 0 || bytes === undefined || byte + widthBytes > bytes.length)
      throw arena.outside(window, byte >>> 2);
    if (arena.isMissing)
      arena.requireLoaded(window, byte >>> 2, ((byte & 3) + widthBytes + 3) >>> 2);
    this.window = window;
    this.byte = byte;
    return true;
  }

  /** Finds a row's cell, and makes its chunk if it has none. Within an operation. */
  locateForWrite(column: Column, row: number): void {
    if (this.locate(column, row)) return;
    const { arena } = this;
    const chunk = row >>> this.chunkBits;
    const count = this.chunkPages(column);
    const address = this.parts.pages.allocate(count);
    const window = address >>> WINDOW_PAGE_BITS;
    const start = (address & WINDOW_PAGE_MASK) * STORE_PAGE;
    if (arena.isMissing) arena.requireLoaded(window, start / 4, count * WORDS_PER_PAGE);
    arena.bytes[window]!.fill(0, start, start + count * STORE_PAGE);
    this.growList(column, chunk);
    const list = arena.get(this.recordsWindow, column.record + RecordWord.List);
    const at = (list & WINDOW_PAGE_MASK) * WORDS_PER_PAGE + chunk;
    arena.set(list >>> WINDOW_PAGE_BITS, at, address);
    this.locate(column, row);
  }

  private growList({ record }: Column, chunk: number): void {
    const { arena, recordsWindow } = this;
    const pages = arena.get(recordsWindow, record + RecordWord.ListPages);
    if (chunk < pages * WORDS_PER_PAGE) return;
    const more = Math.max(2 * pages, Math.ceil((chunk + 1) / WORDS_PER_PAGE));
    const old = arena.get(recordsWindow, record + RecordWord.List);
    const address = this.parts.pages.allocate(more);
    const window = address >>> WINDOW_PAGE_BITS;
    const at = (address & WINDOW_PAGE_MASK) * WORDS_PER_PAGE;
    const words = arena.words[window]!;
    words.fill(0, at, at + more * WORDS_PER_PAGE);
    const from = (old & WINDOW_PAGE_MASK) * WORDS_PER_PAGE;
    for (let i = 0; i < pages * WORDS_PER_PAGE; i++)
      words[at + i] = arena.get(old >>> WINDOW_PAGE_BITS, from + i);
    arena.set(recordsWindow, record + RecordWord.List, address);
    arena.set(recordsWindow, record + RecordWord.ListPages, more);
    // Freed last: this operation must not use its pages again.
    if (pages > 0) this.retired.push(old, pages);
  }

  /** Runs (page address, pages) that this operation has replaced. */
  private retired: number[] = [];

  /** Frees what the operation replaced. Its last step. */
  freeRetired(): void {
    const { retired } = this;
    if (retired.length === 0) return;
    this.retired = [];
    for (let i = 0; i < retired.length; i += 2) this.parts.pages.free(retired[i]!, retired[i + 1]!);
  }

  /** Forgets what a failed operation replaced. */
  forgetRetired(): void {
    this.retired = [];
  }

  /** The first chunk after the last row's. */
  get firstEmptyChunk(): number {
    return Math.ceil(this.length / 2 ** this.chunkBits);
  }

  /**
   * Frees the chunk that a removed row leaves empty, except for one after the last row: a table
   * whose length goes up and down would make that one repeatedly. Within an operation.
   */
  freeSpare(): void {
    const { length, firstEmptyChunk } = this;
    if (length === firstEmptyChunk * 2 ** this.chunkBits) this.freeChunk(firstEmptyChunk + 1);
  }

  /** Frees a chunk of all columns. Within an operation. */
  freeChunk(chunk: number): void {
    const { arena } = this;
    for (const column of this.all()) {
      const address = this.chunk(column, chunk);
      if (address === 0) continue;
      const list = arena.get(this.recordsWindow, column.record + RecordWord.List);
      arena.set(list >>> WINDOW_PAGE_BITS, (list & WINDOW_PAGE_MASK) * WORDS_PER_PAGE + chunk, 0);
      this.parts.pages.free(address, this.chunkPages(column));
    }
  }

  /** Frees the lists and the records of a table without rows. Within an operation. */
  freeRecords(): void {
    const { arena } = this;
    const window = this.recordsWindow;
    for (const { record } of this.all()) {
      const pages = arena.get(window, record + RecordWord.ListPages);
      if (pages > 0) this.parts.pages.free(arena.get(window, record + RecordWord.List), pages);
    }
    this.parts.pages.free(this.header(TableWord.Records), RECORD_PAGES);
  }
}

/** The codecs of a schema. @throws {TypeError} {RangeError} */
export function codecsOf(schema: Readonly<Record<string, ColumnType>>): Map<string, ColumnCodec> {
  if (schema === null || typeof schema !== "object")
    throw new TypeError(`Expected a schema of columns, got ${showValue(schema)}`);
  const codecs = new Map<string, ColumnCodec>();
  for (const [name, type] of Object.entries(schema)) codecs.set(name, ColumnCodec.of(name, type));
  if (codecs.size === 0 || codecs.size > MAX_COLUMNS)
    throw new RangeError(`Expected 1 to ${MAX_COLUMNS} columns, got ${codecs.size}`);
  return codecs;
}
