/**
 * ViewTable: the views that one thread keeps, found by the first page of their range.
 *
 * Open addressing with linear probing, at most half full (Knuth, TAOCP 6.4). It has columns instead
 * of a Map of entries, because with many views a look-up costs as much as the cache lines it
 * touches. A Map took four times as long with 10,000 views.
 *
 * Invariant: `words[SLOT_WORDS * slot]` is 0 exactly if the slot is free.
 */

/** Set in a key: the view was asked for since the hand last passed it (views.ts). */
export const USED = 1;
/** Set in a key: the view is a Uint8Array, as most are. */
export const BYTES = 2;
const FLAGS = USED | BYTES;
const FLAG_BITS = 2;
/** Words of a slot. */
export const SLOT_WORDS = 3;
/** 2^32 divided by the golden ratio: the top bits of its multiples are spread evenly. */
const HASH_FACTOR = 0x9e3779b1;

export class ViewTable {
  /**
   * Three words for each slot: (first page + 1) * 4 + flags; the range's length in pages; and
   * Word.Discards at the last check that each page was referenced and loaded.
   */
  readonly words: Int32Array;
  readonly views: (ArrayBufferView | undefined)[] = [];
  /**
   * The buffer itself, because a view of the program's own type may return anything as its buffer.
   */
  readonly buffers: (ArrayBuffer | undefined)[] = [];
  readonly types: unknown[] = [];
  private readonly mask: number;
  private readonly shift: number;

  /** @param count a power of 2 */
  constructor(count: number) {
    this.words = new Int32Array(SLOT_WORDS * count);
    // One by one: the engine represents a large `new Array(count)` in a slower way.
    for (let i = 0; i < count; i++) {
      this.views.push(undefined);
      this.buffers.push(undefined);
      this.types.push(undefined);
    }
    this.mask = count - 1;
    this.shift = Math.clz32(this.mask);
  }

  /** The slot of the view that starts at `page`, or the free slot for it. */
  find(page: number): number {
    const { words, mask } = this;
    const key = (page + 1) << FLAG_BITS;
    let slot = this.home(page);
    for (
      let found = words[SLOT_WORDS * slot]!;
      found !== 0 && (found & ~FLAGS) !== key;
      found = words[SLOT_WORDS * slot]!
    )
      slot = (slot + 1) & mask;
    return slot;
  }

  private home(page: number): number {
    return Math.imul(page, HASH_FACTOR) >>> this.shift;
  }

  /** Fills a slot with the buffer of `pages` pages from `page` on, and its view as bytes. */
  set(slot: number, page: number, pages: number, buffer: ArrayBuffer): void {
    this.words[SLOT_WORDS * slot] = (page + 1) << FLAG_BITS;
    this.words[SLOT_WORDS * slot + 1] = pages;
    this.buffers[slot] = buffer;
    this.setView(slot, new Uint8Array(buffer), Uint8Array);
  }

  setView(slot: number, view: ArrayBufferView, type: unknown): void {
    this.views[slot] = view;
    this.types[slot] = type;
    this.words[SLOT_WORDS * slot] =
      (this.words[SLOT_WORDS * slot]! & ~BYTES) | (type === Uint8Array ? BYTES : 0);
  }

  pagesAt(slot: number): number {
    return this.words[SLOT_WORDS * slot + 1]!;
  }

  /** Copies slot `from` of `other`, which may be this table. */
  copy(slot: number, other: ViewTable, from: number): void {
    for (let word = 0; word < SLOT_WORDS; word++)
      this.words[SLOT_WORDS * slot + word] = other.words[SLOT_WORDS * from + word]!;
    this.views[slot] = other.views[from];
    this.buffers[slot] = other.buffers[from];
    this.types[slot] = other.types[from];
  }

  /** Frees a slot. Moves up the slots after it that a search would miss otherwise. */
  remove(slot: number): void {
    const { words, mask } = this;
    let free = slot;
    for (let from = (slot + 1) & mask; words[SLOT_WORDS * from] !== 0; from = (from + 1) & mask) {
      const home = this.home((words[SLOT_WORDS * from]! >>> FLAG_BITS) - 1);
      if (((from - home) & mask) < ((from - free) & mask)) continue;
      this.copy(free, this, from);
      free = from;
    }
    words[SLOT_WORDS * free] = 0;
    this.views[free] = this.buffers[free] = this.types[free] = undefined;
  }
}
