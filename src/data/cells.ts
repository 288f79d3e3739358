/**
 * Reads and writes the cells of a table. Neither a failure nor a thread that dies leaves half a
 * row.
 *
 * The journal notes what a cell held, word by word. A large vector would fill the journal, so its
 * old contents go to a block: the journal names it, and the operation's end frees it. A cell of a
 * new row needs neither, because the table does not count that row yet.
 */
import { CorruptStoreError } from "../errors/store.ts";
import type { CellArray, ColumnCodec } from "./column-types.ts";
import type { Column, Columns } from "./columns.ts";
import { noteCopy } from "./journal.ts";
import { BLOCK_KIND_MASK, BlockKind, WINDOW_UNIT_BITS, WINDOW_UNIT_MASK } from "./layout.ts";
import type { StoreParts } from "./parts.ts";

const JOURNALED_BYTES = 256;
const HEAD_BYTES = 8;
const IS_USED = 0x80;
const HIGH_MASK = 0x7f;

export class Cells {
  private readonly parts: StoreParts;
  private readonly columns: Columns;
  /** Blocks (window, word) that the operation frees at its end. */
  private freed: number[] = [];

  constructor(parts: StoreParts, columns: Columns) {
    this.parts = parts;
    this.columns = columns;
  }

  /** A copy of the value of a cell. @throws {CorruptStoreError} {NotLoadedError} */
  read(column: Column, row: number): unknown {
    const { columns } = this;
    const { arena } = this.parts;
    const { codec } = column;
    if (codec.isBytes) return this.readBlock(column, row);
    if (!columns.locate(column, row)) return codec.decode(codec.zeros());
    const view = codec.viewAt(arena.bytes[columns.window]!, columns.byte);
    return codec.decode(codec.length === 0 ? view : view.slice());
  }

  private readBlock(column: Column, row: number): Uint8Array {
    const { columns } = this;
    if (!columns.locate(column, row)) return new Uint8Array(0);
    if (!this.findBlock(columns.window, columns.byte >>> 2)) return new Uint8Array(0);
    const start = 4 * this.blockWord + HEAD_BYTES;
    return this.parts.arena.bytes[this.blockWindow]!.slice(start, start + this.blockBytes);
  }

  private blockWindow = 0;
  private blockWord = 0;
  private blockBytes = 0;

  /** Finds the block that a cell refers to. False if it is empty. */
  private findBlock(window: number, word: number): boolean {
    const { arena } = this.parts;
    const first = arena.get(window, word);
    if (first === 0) return false;
    const second = arena.get(window, word + 1);
    const blockWindow = ((first & HIGH_MASK) << 9) | (second >>> WINDOW_UNIT_BITS);
    const blockWord = (second & WINDOW_UNIT_MASK) << 2;
    const kind = arena.get(blockWindow, blockWord) & BLOCK_KIND_MASK;
    const length = arena.get(blockWindow, blockWord + 1);
    if (kind !== BlockKind.Cell || blockWindow === 0)
      throw new CorruptStoreError("A table refers to a block that is not a cell");
    const end = 4 * blockWord + HEAD_BYTES + length;
    if (length < 0 || end > arena.bytes[blockWindow]!.length)
      throw arena.outside(blockWindow, end >>> 2);
    if (arena.isMissing) arena.requireLoaded(blockWindow, blockWord, 2 + Math.ceil(length / 4));
    this.blockWindow = blockWindow;
    this.blockWord = blockWord;
    this.blockBytes = length;
    return true;
  }

  /**
   * Writes those bytes to a cell. `isNew`: the cell holds nothing of value. Within an operation,
   * which must call `finish`.
   */
  write(column: Column, row: number, value: CellArray, isNew: boolean): void {
    const { columns } = this;
    columns.locateForWrite(column, row);
    const { window, byte } = columns;
    if (column.codec.isBytes) this.writeBlock(window, byte >>> 2, value as Uint8Array, isNew);
    else this.store(column.codec, value, isNew);
  }

  private writeBlock(window: number, word: number, bytes: Uint8Array, isNew: boolean): void {
    const { arena, blocks } = this.parts;
    if (!isNew) this.freeLater(window, word);
    if (bytes.length === 0) {
      arena.set(window, word, 0);
      return;
    }
    blocks.allocate(HEAD_BYTES + bytes.length, BlockKind.Cell, bytes.length);
    arena.bytes[blocks.window]!.set(bytes, 4 * blocks.word + HEAD_BYTES);
    arena.set(window, word, IS_USED | (blocks.window >>> 9));
    arena.set(window, word + 1, (blocks.window << WINDOW_UNIT_BITS) | (blocks.word >>> 2));
  }

  /** Writes numbers into the cell that was located. */
  private store(codec: ColumnCodec, value: CellArray, isNew: boolean): void {
    const { window, byte } = this.columns;
    if (!isNew) this.keep(window, byte, codec.widthBytes);
    codec.viewAt(this.parts.arena.bytes[window]!, byte).set(value as never);
  }

  /** Notes these bytes, so that a failed operation puts them back. */
  private keep(window: number, byte: number, lengthBytes: number): void {
    const { arena, blocks } = this.parts;
    const first = byte >>> 2;
    const count = ((byte + lengthBytes + 3) >>> 2) - first;
    const words = arena.words[window]!;
    if (lengthBytes > JOURNALED_BYTES) {
      blocks.allocate(HEAD_BYTES + 4 * count, BlockKind.Cell, 4 * count);
      const copy = { window: blocks.window, word: blocks.word + HEAD_BYTES / 4 };
      arena.words[copy.window]!.set(words.subarray(first, first + count), copy.word);
      noteCopy(arena.root, { window, word: first, count }, copy);
      this.freed.push(blocks.window, blocks.word);
      return;
    }
    for (let word = first; word < first + count; word++) arena.set(window, word, words[word]!);
  }

  /** Moves the cell of one row into another: only that one refers to its block then. */
  move(column: Column, from: number, to: number): void {
    const { columns } = this;
    const { arena } = this.parts;
    if (column.codec.isBytes) {
      if (columns.locate(column, to)) this.freeLater(columns.window, columns.byte >>> 2);
      const isThere = columns.locate(column, from);
      const word = columns.byte >>> 2;
      const fromWindow = columns.window;
      const first = isThere ? arena.get(fromWindow, word) : 0;
      const second = isThere ? arena.get(fromWindow, word + 1) : 0;
      if (isThere) arena.set(fromWindow, word, 0);
      if (first === 0 && !columns.locate(column, to)) return;
      columns.locateForWrite(column, to);
      arena.set(columns.window, columns.byte >>> 2, first);
      arena.set(columns.window, (columns.byte >>> 2) + 1, second);
      return;
    }
    const { codec } = column;
    const isThere = columns.locate(column, from);
    const view = isThere ? codec.viewAt(arena.bytes[columns.window]!, columns.byte) : undefined;
    const value = view?.slice() ?? codec.zeros();
    columns.locateForWrite(column, to);
    this.store(codec, value, false);
  }

  /** Frees the block of a cell, and empties the cell. */
  clear(column: Column, row: number): void {
    const { columns } = this;
    if (!column.codec.isBytes || !columns.locate(column, row)) return;
    const { window, byte } = columns;
    this.freeLater(window, byte >>> 2);
    this.parts.arena.set(window, byte >>> 2, 0);
  }

  private freeLater(window: number, word: number): void {
    if (this.findBlock(window, word)) this.freed.push(this.blockWindow, this.blockWord);
  }

  /** Ends an operation: frees what it replaced. */
  finish(): void {
    const { freed } = this;
    this.reset();
    for (let i = 0; i < freed.length; i += 2) this.parts.blocks.free(freed[i]!, freed[i + 1]!);
    this.columns.freeRetired();
  }

  /** Drops what an operation that failed would have freed. */
  reset(): void {
    this.freed = [];
  }
}
