/**
 * Heap: blocks of 0 bytes to 64 MiB. Each has a handle: a plain number that can be stored anywhere.
 *
 * A handle is the block's address and 12 bits that differ from those of earlier blocks there. A
 * handle that was freed or never given throws StaleHandleError, except that once in 4,096 reuses of
 * a block an old handle equals its new one. Whatever number is passed, only the store's own pages
 * are read.
 *
 *   block    generation << 3 | BlockKind.Heap · bytes · contents
 */
import { INSPECT } from "../core/describe.ts";
import { count, describeStructure } from "./describe.ts";
import { StaleHandleError } from "../errors/store.ts";
import { BLOCK_KIND_MASK, BlockKind, Root, WINDOW_UNIT_BITS, WINDOW_UNIT_MASK } from "./layout.ts";
import type { StoreParts } from "./parts.ts";
import { readRaced } from "./racing.ts";
import { lengthOfBytes } from "./values.ts";

export const MAX_VALUE_BYTES = 64 * 1024 * 1024;
const HEAD_BYTES = 8;
const GENERATION_BITS = 12;
const GENERATIONS = 1 << GENERATION_BITS;
const MAX_GENERATION = 1 << 29;
/** The stripes of the heap: no named structure has this number. */
const STRUCTURE = 1 << 20;

/** Blocks of bytes in a store's memory, each with a number as its handle. */
export class Heap {
  private readonly parts: StoreParts;
  private window = 0;
  private word = 0;
  private length = 0;

  constructor(parts: StoreParts) {
    this.parts = parts;
  }

  [INSPECT](): string {
    return describeStructure("Heap", null, () => count(this.blocks, "block"));
  }

  /** Blocks in use. */
  get blocks(): number {
    this.parts.arena.beginRead("blocks");
    return this.parts.arena.root[Root.HeapBlocks]!;
  }

  /** Bytes in them. */
  get bytes(): number {
    const { arena } = this.parts;
    arena.beginRead("bytes");
    return (arena.root[Root.HeapBytes + 1]! >>> 0) * 2 ** 32 + (arena.root[Root.HeapBytes]! >>> 0);
  }

  /**
   * Copies bytes into a new block. Returns its handle.
   *
   * @throws {TypeError} {RangeError} for anything but a Uint8Array of at most 64 MiB
   * @throws {OutOfMemoryError} {SyscallError} {NotLoadedError} with nothing changed
   */
  put(value: Uint8Array): number {
    const length = lengthOfBytes("value", value);
    if (length > MAX_VALUE_BYTES)
      throw new RangeError(`Expected at most ${MAX_VALUE_BYTES} bytes, got ${length}`);
    const { arena, blocks } = this.parts;
    return arena.write("put()", () => {
      const { root } = arena;
      const generation = (root[Root.Generation]! + 1) % MAX_GENERATION;
      arena.setRoot(Root.Generation, generation);
      blocks.allocate(HEAD_BYTES + length, (generation << 3) | BlockKind.Heap, length);
      const { window, word } = blocks;
      this.mark(window, word);
      arena.bytes[window]!.set(value, 4 * word + HEAD_BYTES);
      this.account(1, length);
      const unit = window * 2 ** WINDOW_UNIT_BITS + (word >>> 2);
      return unit * GENERATIONS + (generation & (GENERATIONS - 1));
    });
  }

  private mark(window: number, word: number): void {
    const { control } = this.parts.arena;
    control.mark(control.stripeAt(STRUCTURE, stripeIndex(window, word)));
  }

  private account(blocks: number, bytes: number): void {
    const { arena } = this.parts;
    arena.setRoot(Root.HeapBlocks, Math.max(0, arena.root[Root.HeapBlocks]! + blocks));
    const sum = Math.max(0, this.bytes + bytes);
    arena.setRoot(Root.HeapBytes, sum | 0);
    arena.setRoot(Root.HeapBytes + 1, Math.floor(sum / 2 ** 32));
  }

  /** A copy of a block's bytes. @throws {StaleHandleError} {NotLoadedError} */
  get(handle: number): Uint8Array<ArrayBuffer> {
    const { arena } = this.parts;
    arena.beginRead("get()");
    const copy = () => {
      this.locate(handle);
      const start = 4 * this.word + HEAD_BYTES;
      return arena.bytes[this.window]!.slice(start, start + this.length);
    };
    return arena.mayBeRaced ? this.readRaced(handle, copy) : copy();
  }

  /**
   * The block's own bytes, without a copy: valid until the next write to the store, in the writing
   * thread only. @throws as `get`
   */
  getView(handle: number): Uint8Array<ArrayBuffer> {
    const { arena } = this.parts;
    arena.beginRead("getView()");
    this.locate(handle);
    const start = 4 * this.word + HEAD_BYTES;
    return arena.bytes[this.window]!.subarray(start, start + this.length);
  }

  /** True if the handle names a block in use. @throws {NotLoadedError} */
  has(handle: number): boolean {
    const { arena } = this.parts;
    arena.beginRead("has()");
    const look = () => this.isBlock(handle);
    return arena.mayBeRaced ? this.readRaced(handle, look) : look();
  }

  private readRaced<T>(handle: number, read: () => T): T {
    const { arena } = this.parts;
    this.split(handle);
    const stripe = arena.control.stripeAt(STRUCTURE, stripeIndex(this.window, this.word));
    return readRaced(arena, stripe, read);
  }

  /** Frees a block. @throws {StaleHandleError} {NotLoadedError} with nothing changed */
  free(handle: number): void {
    const { arena, blocks } = this.parts;
    arena.write("free()", () => {
      this.locate(handle);
      const { window, word } = this;
      this.mark(window, word);
      this.account(-1, -this.length);
      blocks.free(window, word);
    });
    this.parts.tidy();
  }

  private locate(handle: number): void {
    if (!this.isBlock(handle)) throw new StaleHandleError(handle);
  }

  /** Sets the window and the word that a handle names; they may be outside the store. */
  private split(handle: number): number {
    if (!Number.isSafeInteger(handle) || handle < 0) {
      this.window = this.word = -1;
      return 0;
    }
    const unit = Math.floor(handle / GENERATIONS);
    this.window = Math.floor(unit / 2 ** WINDOW_UNIT_BITS);
    this.word = (unit & WINDOW_UNIT_MASK) << 2;
    return handle % GENERATIONS;
  }

  private isBlock(handle: number): boolean {
    const { arena } = this.parts;
    const generation = this.split(handle);
    const { window, word } = this;
    const words = arena.words[window];
    if (window < 1 || words === undefined || word + 2 > words.length) return false;
    if (arena.isMissing) arena.requireLoaded(window, word, 2);
    const first = words[word]!;
    const isOurs =
      (first & BLOCK_KIND_MASK) === BlockKind.Heap &&
      ((first >>> 3) & (GENERATIONS - 1)) === generation;
    if (!isOurs || !this.parts.blocks.isBlock(window, word)) return false;
    const length = words[word + 1]!;
    if (length < 0 || 4 * word + HEAD_BYTES + length > 4 * words.length) return false;
    if (arena.isMissing) arena.requireLoaded(window, word, 2 + Math.ceil(length / 4));
    this.length = length;
    return true;
  }
}

const stripeIndex = (window: number, word: number): number =>
  (Math.imul(window + 1, 0x9e3779b1) ^ Math.imul(word, 0x85ebca6b)) >>> 22;
