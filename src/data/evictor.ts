/**
 * Removes entries from a map: by its limits, expiry, delete and clear.
 *
 * At a limit, a hand goes round the buckets (CLOCK, Corbató 1968) and evicts the first entry that
 * was not read since the hand last passed it. It also removes what has expired, two slots for each
 * entry that is set.
 */
import { CorruptStoreError } from "../errors/store.ts";
import { type Buckets, EXPIRES, expiryAt, MapWord, SLOTS } from "./buckets.ts";
import { JOURNAL_MAX, Root, WINDOW_PAGE_BITS, WINDOW_PAGE_MASK, WORDS_PER_PAGE } from "./layout.ts";
import type { StoreParts } from "./parts.ts";

/** Steps of the hand in one operation. A map with few used slots has few entries to evict. */
const MAX_STEPS = 1 << 22;
/** After this many entries in a row that were all read lately, the hand evicts the next one. */
const MAX_RECENT = 1024;
const SWEEP_SLOTS = 2;
const CLEAR_SLOTS = 64;

export class Evictor {
  private readonly parts: StoreParts;
  private readonly buckets: Buckets;

  constructor(parts: StoreParts, buckets: Buckets) {
    this.parts = parts;
    this.buckets = buckets;
  }

  /** @throws {RangeError} if an entry of that size exceeds the map's limit */
  requireFits(size: number): void {
    const most = this.buckets.headerNumber(MapWord.MaxBytes);
    if (most !== 0 && size > most)
      throw new RangeError(`Expected an entry within maxBytes ${most}, got ${size} bytes`);
  }

  /** Counts an entry's block of that size. */
  added(size: number, expires: boolean): void {
    this.account(size, expires ? 1 : 0);
  }

  removed(size: number, expired: boolean): void {
    this.account(-size, expired ? -1 : 0);
  }

  private account(bytes: number, expiring: number): void {
    const { buckets } = this;
    const sum = Math.max(0, buckets.headerNumber(MapWord.Bytes) + bytes);
    buckets.setHeaderNumber(MapWord.Bytes, sum);
    if (expiring !== 0)
      buckets.setHeader(MapWord.Expiring, Math.max(0, buckets.header(MapWord.Expiring) + expiring));
  }

  /** Removes the current entry, whose hash begins as `hash` does. Within an operation. */
  remove(hash: number): void {
    const { buckets, parts } = this;
    const { arena, blocks } = parts;
    const { entryWindow, entryWord } = buckets;
    arena.control.mark(arena.control.stripeOf(buckets.place.structure, hash));
    const expires = (arena.words[entryWindow]![entryWord + 1]! & EXPIRES) !== 0;
    this.removed(blocks.sizeAt(entryWindow, entryWord), expires);
    buckets.removeSlot();
    buckets.count(-1);
    blocks.free(entryWindow, entryWord);
  }

  /**
   * Evicts what exceeds the limits and some of what has expired, but never the entry at that word.
   */
  evict(window: number, word: number): void {
    const { buckets } = this;
    if (buckets.header(MapWord.Expiring) > 0) this.sweep(window, word);
    const mostEntries = buckets.header(MapWord.MaxEntries) >>> 0;
    const mostBytes = buckets.headerNumber(MapWord.MaxBytes);
    if (mostEntries === 0 && mostBytes === 0) return;
    while (
      (mostEntries !== 0 && buckets.header(MapWord.Size) >>> 0 > mostEntries) ||
      (mostBytes !== 0 && buckets.headerNumber(MapWord.Bytes) > mostBytes)
    ) {
      this.evictOne(window, word);
      const { arena } = this.parts;
      // The journal cannot hold more: commits what has been done so far.
      if (arena.root[Root.JournalCount]! > JOURNAL_MAX / 2) arena.commit();
    }
  }

  private evictOne(window: number, word: number): void {
    const { buckets, parts } = this;
    let slot = buckets.header(MapWord.HandSlot);
    let recent = 0;
    for (let steps = 0; steps < MAX_STEPS; steps++) {
      buckets.findBucket(buckets.header(MapWord.HandHash));
      if (slot < 0 || slot >= SLOTS || buckets.isEmpty) {
        this.nextBucket();
        slot = 0;
        continue;
      }
      const tag = buckets.tagAt(slot);
      if (tag < 0 || (recent < MAX_RECENT && parts.arena.control.takeRecent(tag))) {
        if (tag >= 0) recent++;
        slot++;
        continue;
      }
      buckets.look(slot);
      if (buckets.entryWindow !== window || buckets.entryWord !== word) {
        buckets.setHeader(MapWord.HandSlot, slot);
        this.removeLooked();
        return;
      }
      slot++;
    }
    throw new CorruptStoreError("A map says that it has entries, and has none");
  }

  private removeLooked(): void {
    const { buckets, parts } = this;
    this.remove(parts.arena.words[buckets.entryWindow]![buckets.entryWord]!);
  }

  private nextBucket(): void {
    const { buckets } = this;
    const hand = buckets.header(MapWord.HandHash) >>> 0;
    buckets.setHeader(MapWord.HandHash, buckets.nextAfter(hand) | 0);
    buckets.setHeader(MapWord.HandSlot, 0);
  }

  /** Looks at the next few slots for entries that have expired. */
  private sweep(window: number, word: number): void {
    const { buckets, parts } = this;
    let slot = buckets.header(MapWord.HandSlot);
    for (let n = 0; n < SWEEP_SLOTS; n++) {
      buckets.findBucket(buckets.header(MapWord.HandHash));
      if (slot < 0 || slot >= SLOTS || buckets.isEmpty) {
        this.nextBucket();
        slot = 0;
        continue;
      }
      if (buckets.look(slot) && (buckets.entryWindow !== window || buckets.entryWord !== word)) {
        const words = parts.arena.words[buckets.entryWindow]!;
        const expires = (words[buckets.entryWord + 1]! & EXPIRES) !== 0;
        if (expires && expiryAt(words, buckets.entryWord) <= parts.now()) {
          this.removeLooked();
          continue;
        }
      }
      slot++;
    }
    buckets.setHeader(MapWord.HandSlot, slot);
  }

  /**
   * Puts an empty table in the map's place, and frees the old one in steps. Runs operations of its
   * own.
   */
  clear(): void {
    const { buckets, parts } = this;
    const { arena } = parts;
    const directory = buckets.header(MapWord.Directory);
    const { depth } = buckets;
    arena.write("clear()", () => {
      arena.requireAllLoaded();
      arena.control.markStructure(buckets.place.structure);
      buckets.create();
      buckets.setHeaderNumber(MapWord.Bytes, 0);
      for (const word of [MapWord.Expiring, MapWord.HandHash, MapWord.HandSlot])
        buckets.setHeader(word, 0);
    });
    this.freeTable(directory, depth);
  }

  /** Frees the whole table of a map without a name. Runs operations of its own. */
  free(): void {
    this.freeTable(this.buckets.header(MapWord.Directory), this.buckets.depth);
  }

  private freeTable(directory: number, depth: number): void {
    const { buckets, parts } = this;
    const { arena, pages } = parts;
    const window = directory >>> WINDOW_PAGE_BITS;
    const word = (directory & WINDOW_PAGE_MASK) * WORDS_PER_PAGE;
    let last = 0;
    for (let i = 0; i < 2 ** depth; i++) {
      const bucket = arena.get(window, word + i);
      if (bucket === last) continue;
      last = bucket;
      const bucketWindow = bucket >>> WINDOW_PAGE_BITS;
      const bucketWord = (bucket & WINDOW_PAGE_MASK) * WORDS_PER_PAGE;
      // Within its window, or this throws.
      arena.get(bucketWindow, bucketWord + WORDS_PER_PAGE - 1);
      for (let slot = 0; slot < SLOTS; slot += CLEAR_SLOTS) {
        arena.write("clear()", () => {
          for (let at = slot; at < Math.min(SLOTS, slot + CLEAR_SLOTS); at++) {
            buckets.bucketWindow = bucketWindow;
            buckets.bucketWord = bucketWord;
            if (buckets.look(at)) parts.blocks.free(buckets.entryWindow, buckets.entryWord);
          }
        });
      }
      arena.write("clear()", () => pages.free(bucket, 1));
    }
    const count = Math.max(1, 2 ** depth / WORDS_PER_PAGE);
    arena.write("clear()", () => pages.free(directory, count));
  }
}
