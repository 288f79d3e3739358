/**
 * Blocks: memory of any size from 1 byte to 64 MiB inside a store. Small blocks are cut from spans
 * of one size class; larger ones are runs of pages.
 *
 * A block's first word has its kind in the low bits (BlockKind). Kind 0 is a free block: its second
 * word is the next free block of the span + 1. Each class has a list of its spans with a free
 * block. A span without used blocks is freed, unless it is the only one in its list.
 *
 * A hostile checkpoint may hold any number here: each is checked before it is used, and no loop
 * follows stored links.
 */
import { CorruptStoreError } from "../errors/store.ts";
import type { Arena } from "./arena.ts";
import {
  BLOCK_KIND_MASK,
  BlockKind,
  PAGE_RECORD_WORDS,
  PageKind,
  PageWord,
  pageAddress,
  Root,
  STORE_PAGE,
  WINDOW_PAGE_BITS,
  WINDOW_PAGE_MASK,
  WindowKind,
  WORDS_PER_PAGE,
} from "./layout.ts";
import type { Pages } from "./pages.ts";
import { CLASS_BYTES, classOf, MAX_SMALL_BYTES, SPAN_BLOCKS, SPAN_PAGES } from "./size-classes.ts";

const CLASS_SHIFT = 4;
const CLASS_MASK = 0xff;
const CUT_SHIFT = 12;
const USED_SHIFT = 16;
const FREE_MASK = 0xffff;

export class Blocks {
  /** Where the block is that `allocate` made or `locate` found. */
  window = 0;
  word = 0;
  private readonly arena: Arena;
  private readonly pages: Pages;

  constructor(arena: Arena, pages: Pages) {
    this.arena = arena;
    this.pages = pages;
  }

  /** Bytes that a block of `bytes` takes. */
  sizeFor(bytes: number): number {
    if (bytes <= MAX_SMALL_BYTES) return CLASS_BYTES[classOf(bytes)]!;
    return Math.ceil(bytes / STORE_PAGE) * STORE_PAGE;
  }

  /**
   * Allocates a block and sets its first two words; the others are undefined. Sets `window` and
   * `word`. Within an operation.
   *
   * @param first not of kind Free
   * @throws {OutOfMemoryError} {SyscallError} {NotLoadedError} {CorruptStoreError}
   */
  allocate(bytes: number, first: number, second: number): void {
    const { arena } = this;
    if (bytes > MAX_SMALL_BYTES) {
      const address = this.pages.allocate(Math.ceil(bytes / STORE_PAGE));
      this.window = address >>> WINDOW_PAGE_BITS;
      this.word = (address & WINDOW_PAGE_MASK) * WORDS_PER_PAGE;
    } else {
      this.cut(classOf(bytes));
    }
    const { window, word } = this;
    if (arena.isMissing) arena.requireLoaded(window, word, Math.ceil(bytes / 4));
    arena.set(window, word, first);
    arena.set(window, word + 1, second);
  }

  /** Takes a block of the class. */
  private cut(sizeClass: number): void {
    const { arena } = this;
    let span = arena.root[Root.ClassHeads + sizeClass]!;
    if (span === 0) span = this.addSpan(sizeClass);
    const window = span >>> WINDOW_PAGE_BITS;
    const page = span & WINDOW_PAGE_MASK;
    if (arena.kinds[window] !== WindowKind.Segment) this.throwNoSpan(span);
    const record = arena.recordsAt[window]! + PAGE_RECORD_WORDS * page;
    const state = arena.get(window, record + PageWord.State);
    if ((state & 0xfff) !== (PageKind.Span | (sizeClass << CLASS_SHIFT))) this.throwNoSpan(span);
    const use = arena.get(window, record + PageWord.Use);
    const count = SPAN_BLOCKS[sizeClass]!;
    const used = use >>> USED_SHIFT;
    let block = (use & FREE_MASK) - 1;
    let next = 0;
    const wordsPerBlock = CLASS_BYTES[sizeClass]! >> 2;
    if (block >= 0) {
      const at = page * WORDS_PER_PAGE + block * wordsPerBlock;
      const first = arena.get(window, at);
      next = arena.get(window, at + 1);
      if (block >= count || (first & BLOCK_KIND_MASK) !== BlockKind.Free || next >>> 0 > count)
        this.throwNoSpan(span);
    } else {
      block = state >>> CUT_SHIFT;
      if (block >= count) this.throwNoSpan(span);
      arena.set(window, record + PageWord.State, state + (1 << CUT_SHIFT));
    }
    arena.set(window, record + PageWord.Use, next | ((used + 1) << USED_SHIFT));
    if (used + 1 >= count) this.unlink(sizeClass, window, record);
    this.window = window;
    this.word = page * WORDS_PER_PAGE + block * wordsPerBlock;
  }

  private throwNoSpan(span: number): never {
    throw new CorruptStoreError(`The span at page address ${span} is not what its list says`);
  }

  /** A new span, at the head of its list. */
  private addSpan(sizeClass: number): number {
    const { arena } = this;
    const count = SPAN_PAGES[sizeClass]!;
    const address = this.pages.allocate(count);
    const window = address >>> WINDOW_PAGE_BITS;
    const page = address & WINDOW_PAGE_MASK;
    const record = arena.recordsAt[window]! + PAGE_RECORD_WORDS * page;
    for (let i = 1; i < count; i++) {
      const inside = record + PAGE_RECORD_WORDS * i;
      arena.set(window, inside + PageWord.State, PageKind.Inside);
      arena.set(window, inside + PageWord.Use, page);
    }
    arena.set(window, record + PageWord.State, PageKind.Span | (sizeClass << CLASS_SHIFT));
    arena.set(window, record + PageWord.Use, 0);
    this.link(sizeClass, address, window, record);
    return address;
  }

  private link(sizeClass: number, span: number, window: number, record: number): void {
    const { arena } = this;
    const head = arena.root[Root.ClassHeads + sizeClass]!;
    arena.set(window, record + PageWord.Next, head);
    arena.set(window, record + PageWord.Previous, 0);
    if (head !== 0) this.setLink(head, PageWord.Previous, span);
    arena.setRoot(Root.ClassHeads + sizeClass, span);
  }

  private unlink(sizeClass: number, window: number, record: number): void {
    const { arena } = this;
    const next = arena.get(window, record + PageWord.Next);
    const previous = arena.get(window, record + PageWord.Previous);
    if (next !== 0) this.setLink(next, PageWord.Previous, previous);
    if (previous !== 0) this.setLink(previous, PageWord.Next, next);
    else arena.setRoot(Root.ClassHeads + sizeClass, next);
  }

  private setLink(span: number, word: number, value: number): void {
    const { arena } = this;
    const window = span >>> WINDOW_PAGE_BITS;
    if (arena.kinds[window] !== WindowKind.Segment) this.throwNoSpan(span);
    const record = arena.recordsAt[window]! + PAGE_RECORD_WORDS * (span & WINDOW_PAGE_MASK);
    if ((arena.get(window, record) & 15) !== PageKind.Span) this.throwNoSpan(span);
    arena.set(window, record + word, value);
  }

  /**
   * Frees the block at a word of a window. Within an operation. @throws {CorruptStoreError}
   * {NotLoadedError}
   */
  free(window: number, word: number): void {
    const { arena } = this;
    const record = this.recordOf(window, word);
    if (record < 0) {
      const page = word / WORDS_PER_PAGE;
      if (!Number.isInteger(page)) this.throwNoBlock(window, word);
      const address = (window << WINDOW_PAGE_BITS) | page;
      const count = this.pages.lengthOf(address);
      arena.set(window, word, BlockKind.Free);
      this.pages.free(address, count);
      return;
    }
    const state = arena.get(window, record + PageWord.State);
    const use = arena.get(window, record + PageWord.Use);
    const sizeClass = (state >>> CLASS_SHIFT) & CLASS_MASK;
    const page = (record - arena.recordsAt[window]!) / PAGE_RECORD_WORDS;
    const block = (word - page * WORDS_PER_PAGE) / (CLASS_BYTES[sizeClass]! >> 2);
    const used = (use >>> USED_SHIFT) - 1;
    if (used < 0 || (arena.get(window, word) & BLOCK_KIND_MASK) === BlockKind.Free)
      this.throwNoBlock(window, word);
    arena.set(window, word, BlockKind.Free);
    arena.set(window, word + 1, use & FREE_MASK);
    arena.set(window, record + PageWord.Use, (block + 1) | (used << USED_SHIFT));
    const span = (window << WINDOW_PAGE_BITS) | page;
    if (used + 1 >= SPAN_BLOCKS[sizeClass]!) this.link(sizeClass, span, window, record);
    if (used === 0) this.freeSpan(sizeClass, span, window, record);
  }

  private freeSpan(sizeClass: number, span: number, window: number, record: number): void {
    const { arena } = this;
    const isOnly =
      arena.get(window, record + PageWord.Next) === 0 &&
      arena.get(window, record + PageWord.Previous) === 0;
    // A small last span of a class stays for the next block.
    if (isOnly && SPAN_BLOCKS[sizeClass]! > 1) return;
    this.unlink(sizeClass, window, record);
    const count = SPAN_PAGES[sizeClass]!;
    for (let i = 0; i < count; i++)
      arena.set(window, record + PAGE_RECORD_WORDS * i + PageWord.State, PageKind.Free);
    this.pages.free(span, count);
  }

  /**
   * The record of the span that has a block at that word, or -1 if the word begins a page of
   * another kind.
   *
   * @throws {CorruptStoreError} if no block begins there
   */
  private recordOf(window: number, word: number): number {
    const { arena } = this;
    if (arena.kinds[window] === WindowKind.Large) return -1;
    if (arena.kinds[window] !== WindowKind.Segment) this.throwNoBlock(window, word);
    let page = Math.floor(word / WORDS_PER_PAGE);
    let record = arena.recordsAt[window]! + PAGE_RECORD_WORDS * page;
    let state = arena.get(window, record + PageWord.State);
    if ((state & 15) === PageKind.Inside) {
      const first = arena.get(window, record + PageWord.Use);
      if (first < 0 || first >= page) this.throwNoBlock(window, word);
      page = first;
      record = arena.recordsAt[window]! + PAGE_RECORD_WORDS * page;
      state = arena.get(window, record + PageWord.State);
      if ((state & 15) !== PageKind.Span) this.throwNoBlock(window, word);
    }
    if ((state & 15) === PageKind.Run) return -1;
    const sizeClass = (state >>> CLASS_SHIFT) & CLASS_MASK;
    if ((state & 15) !== PageKind.Span || sizeClass >= CLASS_BYTES.length)
      this.throwNoBlock(window, word);
    const offset = word - page * WORDS_PER_PAGE;
    const wordsPerBlock = CLASS_BYTES[sizeClass]! >> 2;
    const isBlock = offset % wordsPerBlock === 0 && offset / wordsPerBlock < state >>> CUT_SHIFT;
    if (!isBlock) this.throwNoBlock(window, word);
    return record;
  }

  /**
   * Bytes of the block at a word of a window: what `sizeFor` said when it was allocated.
   *
   * @throws {CorruptStoreError} if no block begins there
   */
  sizeAt(window: number, word: number): number {
    const { arena } = this;
    const record = this.recordOf(window, word);
    if (record >= 0) {
      const state = arena.get(window, record + PageWord.State);
      return CLASS_BYTES[(state >>> CLASS_SHIFT) & CLASS_MASK]!;
    }
    const page = word / WORDS_PER_PAGE;
    if (!Number.isInteger(page)) this.throwNoBlock(window, word);
    return this.pages.lengthOf((window << WINDOW_PAGE_BITS) | page) * STORE_PAGE;
  }

  /**
   * True if most blocks of that block's span are free, and the span is not the one that blocks are
   * cut from.
   *
   * @throws {CorruptStoreError} if no block begins there
   */
  isSparse(window: number, word: number): boolean {
    const { arena } = this;
    const record = this.recordOf(window, word);
    if (record < 0) return false;
    const state = arena.get(window, record + PageWord.State);
    const sizeClass = (state >>> CLASS_SHIFT) & CLASS_MASK;
    const used = arena.get(window, record + PageWord.Use) >>> USED_SHIFT;
    const page = (record - arena.recordsAt[window]!) / PAGE_RECORD_WORDS;
    const isHead = arena.root[Root.ClassHeads + sizeClass] === pageAddress(window, page);
    return !isHead && 2 * used <= SPAN_BLOCKS[sizeClass]!;
  }

  /** True if a block, free or not, begins at that word. @throws {NotLoadedError} */
  isBlock(window: number, word: number): boolean {
    try {
      this.sizeAt(window, word);
      return true;
    } catch (error) {
      if (error instanceof CorruptStoreError) return false;
      throw error;
    }
  }

  throwNoBlock(window: number, word: number): never {
    throw new CorruptStoreError(`No block begins at word ${word} of window ${window}`);
  }
}
