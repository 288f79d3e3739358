/**
 * The table of a map: extendible hashing (Fagin, Nievergelt, Pippenger and Strong, 1979).
 *
 * A directory of 2^depth page addresses is indexed by the highest bits of a hash. Each address
 * names a bucket: a page with 496 slots, which is a small table with linear probing. A bucket that
 * is 4/5 full is split in two by the next bit of its hashes, so an operation moves at most 397
 * entries, whatever the map's size. Sometimes a split doubles the directory (4 bytes a bucket). A
 * look-up reads one word of the directory, a slot or two in one cache line, and the entry.
 *
 * A slot is two words: the low 24 bits of the hash, a bit that says it is used and the high 7 bits
 * of the entry's address; the low 32 bits of the address. Its home in the bucket follows from the
 * low 16 bits of the hash.
 *
 *   entry    hash with BlockKind.Entry in its low bits · key bytes, flags << 16 · value bytes ·
 *            [expiry in ms, two words] · key, padded to words · value
 *
 * Every number is checked before it is used; no loop runs longer than a bucket or the directory.
 */
import { CorruptStoreError } from "../errors/store.ts";
import type { Arena } from "./arena.ts";
import type { HeaderPlace } from "./header.ts";
import type { Keys } from "./keys.ts";
import {
  BLOCK_KIND_MASK,
  BlockKind,
  WINDOW_PAGE_BITS,
  WINDOW_PAGE_MASK,
  WINDOW_UNIT_BITS,
  WINDOW_UNIT_MASK,
  WORDS_PER_PAGE,
} from "./layout.ts";
import type { Pages } from "./pages.ts";

/** Words of a map's header after those of HeaderWord. */
export const MapWord = {
  KeyType: 3,
  Directory: 4,
  Depth: 5,
  Size: 6,
  /** Counts changes that move slots. */
  Moves: 7,
  /** Bytes of all entries' blocks, two words. */
  Bytes: 8,
  /** 0: no limit. */
  MaxEntries: 10,
  MaxBytes: 12,
  /** Where the evicting hand is: a hash, and a slot in its bucket. */
  HandHash: 14,
  HandSlot: 15,
  /** Entries that expire. */
  Expiring: 16,
} as const;

/** Words of a bucket. */
export const BucketWord = { Depth: 0, Count: 1, Slots: 32 } as const;
export const SLOTS = 496;
const BUCKET_FULL = 396;
export const MAX_DEPTH = 24;
const IS_USED = 0x80;
const HIGH_MASK = 0x7f;
const LOW_HASH = 0xffff;

export const ENTRY_WORDS = 3;
export const EXPIRES = 1 << 16;

export class Buckets {
  /** What `find` found: the slot's bucket and place, the entry, and where its value begins. */
  bucketWindow = 0;
  bucketWord = 0;
  slot = 0;
  entryWindow = 0;
  entryWord = 0;
  valueByte = 0;
  valueBytes = 0;
  readonly place: HeaderPlace;
  readonly arena: Arena;
  readonly pages: Pages;

  constructor(arena: Arena, pages: Pages, place: HeaderPlace) {
    this.arena = arena;
    this.pages = pages;
    this.place = place;
  }

  /** A word of the header. */
  header(word: number): number {
    return this.arena.words[this.place.window]![this.place.word + word]!;
  }

  setHeader(word: number, value: number): void {
    this.arena.set(this.place.window, this.place.word + word, value);
  }

  /** True if the map has a limit: it then notes which entries are read. */
  get isLimited(): boolean {
    const { window, word } = this.place;
    const words = this.arena.words[window]!;
    return (
      (words[word + MapWord.MaxEntries]! |
        words[word + MapWord.MaxBytes]! |
        words[word + MapWord.MaxBytes + 1]!) !==
      0
    );
  }

  /** A number in two words of the header. */
  headerNumber(word: number): number {
    return (this.header(word + 1) >>> 0) * 2 ** 32 + (this.header(word) >>> 0);
  }

  setHeaderNumber(word: number, value: number): void {
    this.setHeader(word, value | 0);
    const high = Math.floor(value / 2 ** 32);
    if (this.header(word + 1) !== high) this.setHeader(word + 1, high);
  }

  /** A map's first directory and bucket. Within an operation. */
  create(): void {
    const directory = this.pages.allocate(1);
    const bucket = this.addBucket(0);
    const words = this.arena.words[directory >>> WINDOW_PAGE_BITS]!;
    words[(directory & WINDOW_PAGE_MASK) * WORDS_PER_PAGE] = bucket;
    this.setHeader(MapWord.Directory, directory);
    this.setHeader(MapWord.Depth, 0);
    this.setHeader(MapWord.Size, 0);
    this.setHeader(MapWord.Moves, (this.header(MapWord.Moves) + 1) | 0);
  }

  /** An empty bucket that nothing refers to yet. Within an operation. */
  addBucket(depth: number): number {
    const address = this.pages.allocate(1);
    const words = this.arena.words[address >>> WINDOW_PAGE_BITS]!;
    const at = (address & WINDOW_PAGE_MASK) * WORDS_PER_PAGE;
    words.fill(0, at, at + WORDS_PER_PAGE);
    words[at + BucketWord.Depth] = depth;
    return address;
  }

  get depth(): number {
    const depth = this.header(MapWord.Depth);
    if (depth >>> 0 > MAX_DEPTH) throw new CorruptStoreError(`A map has a depth of ${depth}`);
    return depth;
  }

  /**
   * Sets `bucketWindow` and `bucketWord` to the bucket of a hash. @throws {CorruptStoreError}
   * {NotLoadedError}
   */
  findBucket(hash: number): Int32Array {
    const { arena, place } = this;
    const header = arena.words[place.window]!;
    const depth = header[place.word + MapWord.Depth]!;
    if (depth >>> 0 > MAX_DEPTH) throw new CorruptStoreError(`A map has a depth of ${depth}`);
    const directory = header[place.word + MapWord.Directory]!;
    const window = directory >>> WINDOW_PAGE_BITS;
    // Two shifts: a shift by 32 shifts by 0.
    const index = (hash >>> 1) >>> (31 - depth);
    const word = (directory & WINDOW_PAGE_MASK) * WORDS_PER_PAGE + index;
    const words = arena.words[window];
    if (window === 0 || words === undefined || word >= words.length)
      throw arena.outside(window, word);
    if (arena.isMissing) arena.requireLoaded(window, word, 1);
    const bucket = words[word]!;
    const bucketWindow = bucket >>> WINDOW_PAGE_BITS;
    const bucketWord = (bucket & WINDOW_PAGE_MASK) * WORDS_PER_PAGE;
    const slots = arena.words[bucketWindow];
    if (bucketWindow === 0 || slots === undefined || bucketWord + WORDS_PER_PAGE > slots.length)
      throw arena.outside(bucketWindow, bucketWord);
    if (arena.isMissing) arena.requireLoaded(bucketWindow, bucketWord, WORDS_PER_PAGE);
    this.bucketWindow = bucketWindow;
    this.bucketWord = bucketWord;
    return slots;
  }

  /**
   * Where the hashes of the next bucket begin: `hash`, from 0 on, is one of the bucket that
   * `findBucket` found. After the last bucket, 2^32.
   */
  nextAfter(hash: number): number {
    const span = 2 ** (32 - this.bucketDepth);
    return Math.floor(hash / span) * span + span;
  }

  /**
   * The depth of the bucket that `findBucket` found: how many bits of a hash all its entries have
   * in common.
   */
  get bucketDepth(): number {
    const depth = this.arena.words[this.bucketWindow]![this.bucketWord + BucketWord.Depth]!;
    if (depth >>> 0 > this.depth) throw new CorruptStoreError(`A bucket has a depth of ${depth}`);
    return depth;
  }

  /**
   * Looks for the entry of the key that was put last. Without one, `slot` is the free slot for it,
   * or -1 if the bucket is full.
   */
  find(keys: Keys): boolean {
    const { hash } = keys;
    const slots = this.findBucket(hash);
    const base = this.bucketWord + BucketWord.Slots;
    const tag = hash << 8;
    let slot = homeOf(hash);
    for (let n = 0; n < SLOTS; n++) {
      const at = base + 2 * slot;
      const first = slots[at]!;
      if (first === 0) {
        this.slot = slot;
        return false;
      }
      if ((first & ~0xff) === tag && this.matches(first, slots[at + 1]!, keys)) {
        this.slot = slot;
        return true;
      }
      slot = slot === SLOTS - 1 ? 0 : slot + 1;
    }
    this.slot = -1;
    return false;
  }

  /** True if a slot's entry has the key; that entry is then the current one. */
  private matches(first: number, second: number, keys: Keys): boolean {
    const { arena } = this;
    const window = ((first & HIGH_MASK) << 9) | (second >>> WINDOW_UNIT_BITS);
    const word = (second & WINDOW_UNIT_MASK) << 2;
    const words = arena.words[window];
    if (window === 0 || words === undefined || word + ENTRY_WORDS >= words.length)
      throw arena.outside(window, word);
    if (arena.isMissing) arena.requireLoaded(window, word, ENTRY_WORDS);
    if (words[word] !== ((keys.hash & ~BLOCK_KIND_MASK) | BlockKind.Entry)) return false;
    const lengths = words[word + 1]!;
    if ((lengths & 0xffff) !== keys.lengthBytes) return false;
    const keyWord = word + ENTRY_WORDS + ((lengths & EXPIRES) === 0 ? 0 : 2);
    const keyWords = (keys.lengthBytes + 3) >>> 2;
    if (keyWord + keyWords > words.length) throw arena.outside(window, keyWord + keyWords);
    if (arena.isMissing) arena.requireLoaded(window, keyWord, keyWords + 1);
    const wanted = keys.words;
    for (let i = 0; i < keyWords; i++) if (words[keyWord + i] !== wanted[i]) return false;
    this.setEntry(window, word, keyWord + keyWords);
    return true;
  }

  private setEntry(window: number, word: number, valueWord: number): void {
    const words = this.arena.words[window]!;
    const length = words[word + 2]!;
    const start = 4 * valueWord;
    if (length < 0 || start + length > 4 * words.length)
      throw this.arena.outside(window, valueWord + (length >>> 2));
    this.entryWindow = window;
    this.entryWord = word;
    this.valueByte = start;
    this.valueBytes = length;
  }

  /**
   * Makes the entry in a slot of the bucket that `findBucket` found the current one. False if the
   * slot is free. Within `beginRead`.
   */
  look(slot: number): boolean {
    const { arena } = this;
    const slots = arena.words[this.bucketWindow]!;
    const at = this.bucketWord + BucketWord.Slots + 2 * slot;
    const first = slots[at]!;
    if (first === 0) return false;
    const second = slots[at + 1]!;
    const window = ((first & HIGH_MASK) << 9) | (second >>> WINDOW_UNIT_BITS);
    const word = (second & WINDOW_UNIT_MASK) << 2;
    const words = arena.words[window];
    if (window === 0 || words === undefined || word + ENTRY_WORDS >= words.length)
      throw arena.outside(window, word);
    if (arena.isMissing) arena.requireLoaded(window, word, ENTRY_WORDS + 1);
    if ((words[word]! & BLOCK_KIND_MASK) !== BlockKind.Entry)
      throw new CorruptStoreError(`A map refers to a block that is not an entry`);
    const lengths = words[word + 1]!;
    const keyWord = word + ENTRY_WORDS + ((lengths & EXPIRES) === 0 ? 0 : 2);
    const valueWord = keyWord + (((lengths & 0xffff) + 3) >>> 2);
    if (valueWord > words.length) throw arena.outside(window, valueWord);
    this.setEntry(window, word, valueWord);
    this.slot = slot;
    return true;
  }

  /** The low 24 bits of the hash of what is in a slot, or -1 if it is free. */
  tagAt(slot: number): number {
    const at = this.bucketWord + BucketWord.Slots + 2 * slot;
    const first = this.arena.words[this.bucketWindow]![at]!;
    return first === 0 ? -1 : first >>> 8;
  }

  /** Writes a block's address into a slot. Within an operation. */
  setSlot(hash: number, window: number, word: number): void {
    const { arena, bucketWindow } = this;
    const at = this.bucketWord + BucketWord.Slots + 2 * this.slot;
    arena.set(bucketWindow, at, (hash << 8) | IS_USED | (window >>> 9));
    arena.set(bucketWindow, at + 1, (window << WINDOW_UNIT_BITS) | (word >>> 2));
  }

  /** Adds to the count of entries of the bucket and of the map. */
  count(change: 1 | -1): void {
    const { arena, bucketWindow, bucketWord } = this;
    const count = arena.get(bucketWindow, bucketWord + BucketWord.Count) + change;
    if (count < 0 || count > SLOTS) throw new CorruptStoreError(`A bucket has ${count} entries`);
    arena.set(bucketWindow, bucketWord + BucketWord.Count, count);
    this.setHeader(MapWord.Size, (this.header(MapWord.Size) + change) | 0);
  }

  /**
   * Frees the current slot, and moves up those after it that a look-up would no longer find.
   * Within an operation.
   */
  removeSlot(): void {
    const { arena, bucketWindow } = this;
    const base = this.bucketWord + BucketWord.Slots;
    let free = this.slot;
    let from = free;
    for (let n = 1; n < SLOTS; n++) {
      from = from === SLOTS - 1 ? 0 : from + 1;
      const first = arena.get(bucketWindow, base + 2 * from);
      if (first === 0) break;
      const home = homeOf(first >>> 8);
      if (distance(home, from) < distance(free, from)) continue;
      arena.set(bucketWindow, base + 2 * free, first);
      arena.set(bucketWindow, base + 2 * free + 1, arena.get(bucketWindow, base + 2 * from + 1));
      free = from;
    }
    arena.set(bucketWindow, base + 2 * free, 0);
    arena.set(bucketWindow, base + 2 * free + 1, 0);
    this.setHeader(MapWord.Moves, (this.header(MapWord.Moves) + 1) | 0);
  }

  /** True if the bucket that `find` looked in must be split before another entry is added. */
  get isFull(): boolean {
    return this.arena.words[this.bucketWindow]![this.bucketWord + BucketWord.Count]! >= BUCKET_FULL;
  }

  /** True if the current bucket has no entries. */
  get isEmpty(): boolean {
    return this.arena.words[this.bucketWindow]![this.bucketWord + BucketWord.Count] === 0;
  }
}

/** The slot at which the search for a hash begins. */
export const homeOf = (hash: number): number => ((hash & LOW_HASH) * SLOTS) >>> 16;

/** When an entry that expires does, in ms. */
export const expiryAt = (words: Int32Array, entryWord: number): number =>
  words[entryWord + 4]! * 2 ** 32 + (words[entryWord + 3]! >>> 0);

/** How many slots `to` is after `from`; the last slot is before the first. */
function distance(from: number, to: number): number {
  return to >= from ? to - from : to - from + SLOTS;
}
