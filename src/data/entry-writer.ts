/**
 * Writes entries of a map: a new entry, one that replaces an old one, or only a value over the old
 * one. map.ts says what a set costs, buckets.ts how an entry is stored.
 */
import { CorruptStoreError } from "../errors/store.ts";
import type { Arena } from "./arena.ts";
import { growBucket } from "./bucket-growth.ts";
import { type Buckets, ENTRY_WORDS, EXPIRES } from "./buckets.ts";
import type { Evictor } from "./evictor.ts";
import type { Keys } from "./keys.ts";
import { BLOCK_KIND_MASK, BlockKind } from "./layout.ts";
import type { StoreParts } from "./parts.ts";

export const MAX_ENTRY_BYTES = 64 * 1024 * 1024;

export class EntryWriter {
  private readonly arena: Arena;
  private readonly parts: StoreParts;
  private readonly buckets: Buckets;
  private readonly keys: Keys;
  private readonly evictor: Evictor;

  constructor(parts: StoreParts, buckets: Buckets, keys: Keys, evictor: Evictor) {
    this.arena = parts.arena;
    this.parts = parts;
    this.buckets = buckets;
    this.keys = keys;
    this.evictor = evictor;
  }

  /**
   * Sets the entry of the key that was put last; `expiry` is negative for an entry that does not
   * expire. Within an operation that has changed nothing yet, because a split commits it. @throws
   * as StoreMap.set
   */
  put(value: Uint8Array, length: number, expiry: number): void {
    const { arena, buckets, keys } = this;
    const headBytes = 4 * (ENTRY_WORDS + (expiry < 0 ? 0 : 2) + ((keys.lengthBytes + 3) >>> 2));
    const bytes = headBytes + length;
    if (bytes > MAX_ENTRY_BYTES)
      throw new RangeError(`Expected an entry of at most ${MAX_ENTRY_BYTES} bytes, got ${bytes}`);
    this.evictor.requireFits(this.parts.blocks.sizeFor(bytes));
    const isThere = buckets.find(keys);
    if (isThere && this.overwrite(value, length, expiry)) return;
    if (isThere) {
      this.replace(value, bytes, headBytes, length, expiry);
      return;
    }
    for (let tries = 0; buckets.isFull || buckets.slot < 0; tries++) {
      if ((tries > 32 || !growBucket(buckets, keys.hash)) && buckets.slot < 0)
        throw new RangeError(
          `The map ${JSON.stringify(buckets.place.name)} is as large as it can be`,
        );
      const isFound = buckets.find(keys);
      if (isFound) throw new CorruptStoreError("A map has an entry in the wrong bucket");
      if (tries > 32) break;
    }
    const { bucketWindow, bucketWord, slot } = buckets;
    this.write(bytes, headBytes, value, length, expiry);
    const { window, word } = this.parts.blocks;
    arena.control.mark(arena.control.stripeOf(buckets.place.structure, keys.hash));
    buckets.bucketWindow = bucketWindow;
    buckets.bucketWord = bucketWord;
    buckets.slot = slot;
    buckets.setSlot(keys.hash, window, word);
    buckets.count(1);
    this.evictor.added(this.parts.blocks.sizeFor(bytes), expiry >= 0);
    this.evictor.evict(window, word);
  }

  /**
   * Writes the value over the old one, if the block has that size, and no other thread may read it
   * or have to undo the write.
   */
  private overwrite(value: Uint8Array, length: number, expiry: number): boolean {
    const { arena, buckets } = this;
    if (expiry >= 0 || arena.control.isShared) return false;
    const { entryWindow, entryWord, valueByte, valueBytes } = buckets;
    const words = arena.words[entryWindow]!;
    if ((words[entryWord + 1]! & EXPIRES) !== 0) return false;
    const { blocks } = this.parts;
    const headBytes = valueByte - 4 * entryWord;
    const size = blocks.sizeFor(headBytes + length);
    if (size !== blocks.sizeFor(headBytes + valueBytes)) return false;
    if (4 * entryWord + size > 4 * words.length) return false;
    if (arena.isMissing) arena.requireLoaded(entryWindow, entryWord, size >>> 2);
    arena.set(entryWindow, entryWord + 2, length);
    arena.bytes[entryWindow]!.set(value, valueByte);
    return true;
  }

  /** Replaces the old block by a new one. */
  private replace(
    value: Uint8Array,
    bytes: number,
    headBytes: number,
    length: number,
    expiry: number,
  ): void {
    const { arena, buckets, evictor } = this;
    const { entryWindow, entryWord } = buckets;
    const oldExpires = (arena.words[entryWindow]![entryWord + 1]! & EXPIRES) !== 0;
    const oldSize = this.parts.blocks.sizeAt(entryWindow, entryWord);
    this.write(bytes, headBytes, value, length, expiry);
    const { window, word } = this.parts.blocks;
    arena.control.mark(arena.control.stripeOf(buckets.place.structure, this.keys.hash));
    buckets.setSlot(this.keys.hash, window, word);
    evictor.removed(oldSize, oldExpires);
    evictor.added(this.parts.blocks.sizeFor(bytes), expiry >= 0);
    this.parts.blocks.free(entryWindow, entryWord);
    evictor.evict(window, word);
  }

  /** Allocates and writes an entry. */
  private write(
    bytes: number,
    headBytes: number,
    value: Uint8Array,
    length: number,
    expiry: number,
  ): void {
    const { keys, arena } = this;
    const { blocks } = this.parts;
    const lengths = keys.lengthBytes | (expiry < 0 ? 0 : EXPIRES);
    blocks.allocate(bytes, (keys.hash & ~BLOCK_KIND_MASK) | BlockKind.Entry, lengths);
    const words = arena.words[blocks.window]!;
    let at = blocks.word + 2;
    words[at++] = length;
    if (expiry >= 0) {
      words[at++] = expiry | 0;
      words[at++] = Math.floor(expiry / 2 ** 32);
    }
    const wanted = keys.words;
    for (let i = 0, end = (keys.lengthBytes + 3) >>> 2; i < end; i++) words[at++] = wanted[i]!;
    arena.bytes[blocks.window]!.set(value, 4 * blocks.word + headBytes);
  }
}
