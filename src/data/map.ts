/**
 * StoreMap: a map whose entries are in a store's memory. Keys of one type, values of bytes.
 *
 * | operation          | cost                                                        |
 * |--------------------|-------------------------------------------------------------|
 * | get, getView, has  | a word of the directory, a line of a bucket, the entry      |
 * | set                | the same, and a block; sometimes a bucket is split          |
 * | delete             | the same; the slots after it move; a bucket may be merged   |
 * | iteration          | a bucket's keys at a time                                   |
 * | clear, compact     | all entries                                                 |
 *
 * Other threads read without a lock (control.ts). Writes are operations of the arena: after an
 * error nothing has changed.
 */
import { INSPECT } from "../core/describe.ts";
import { count, describeStructure } from "./describe.ts";
import { checkFunction, checkInteger, showValue } from "../../ffi/index.ts";
import { requireOptions } from "../core/option-names.ts";
import type { Nullable } from "../core/options.ts";
import type { Arena } from "./arena.ts";
import { mergeBucket } from "./bucket-growth.ts";
import { Buckets, EXPIRES, expiryAt, MapWord } from "./buckets.ts";
import { EntryWriter } from "./entry-writer.ts";
import { Evictor } from "./evictor.ts";
import { compactEntries } from "./compaction.ts";
import type { HeaderPlace } from "./header.ts";
import { type KeyOf, Keys, type KeyType } from "./keys.ts";
import type { SetOptions } from "./map-options.ts";
import { iterate } from "./map-iterator.ts";
import type { StoreParts } from "./parts.ts";
import { readRaced } from "./racing.ts";
import { lengthOfBytes } from "./values.ts";

/** What a read does with the entry it found. */
const Wanted = { Copy: 0, View: 1, Presence: 2 } as const;

/** A map from keys to bytes in a store's memory. `Store.map` makes it. */
export class StoreMap<K extends KeyType = "string"> {
  readonly name: string;
  readonly keyType: K;
  private readonly arena: Arena;
  private readonly parts: StoreParts;
  private readonly buckets: Buckets;
  private readonly key: Keys;
  private readonly evictor: Evictor;
  private readonly writer: EntryWriter;
  private readonly place: HeaderPlace;

  /** For Store. The header is loaded. */
  constructor(parts: StoreParts, place: HeaderPlace, keyType: K) {
    const { arena } = parts;
    this.name = place.name;
    this.keyType = keyType;
    this.place = place;
    this.parts = parts;
    this.arena = arena;
    this.buckets = new Buckets(arena, parts.pages, place);
    this.key = new Keys(keyType, parts.seedLow, parts.seedHigh);
    this.evictor = new Evictor(parts, this.buckets);
    this.writer = new EntryWriter(parts, this.buckets, this.key, this.evictor);
  }

  /** For Store: true if this is the map with that header. */
  isOf(place: HeaderPlace): boolean {
    return place.structure === this.place.structure && place.created === this.place.created;
  }

  [INSPECT](): string {
    return describeStructure("StoreMap", this.name, () => count(this.size, "entry"));
  }

  /** Entries, including expired ones that were not removed yet. @throws {DestroyedError} */
  get size(): number {
    this.begin("size");
    return this.buckets.header(MapWord.Size) >>> 0;
  }

  /** Bytes of all entries' blocks. @throws {DestroyedError} */
  get bytes(): number {
    this.begin("bytes");
    return this.buckets.headerNumber(MapWord.Bytes);
  }

  /**
   * A copy of the value, or undefined if the map has no such entry.
   *
   * @throws {TypeError} {RangeError} if the key is not one of this map's type
   * @throws {NotLoadedError} if a page that it needs is not loaded yet: see Store.whenLoaded
   */
  get(key: KeyOf[K]): Uint8Array<ArrayBuffer> | undefined {
    this.key.put(key);
    return this.read("get()", Wanted.Copy) as Uint8Array<ArrayBuffer> | undefined;
  }

  /**
   * The value without a copy: valid until the next write to the store, in the writing thread only.
   * Its buffer is a whole segment: do not transfer or post it.
   *
   * @throws as `get`
   */
  getView(key: KeyOf[K]): Uint8Array<ArrayBuffer> | undefined {
    this.key.put(key);
    return this.read("getView()", Wanted.View) as Uint8Array<ArrayBuffer> | undefined;
  }

  /** @throws as `get` */
  has(key: KeyOf[K]): boolean {
    this.key.put(key);
    return this.read("has()", Wanted.Presence) !== undefined;
  }

  private begin(method: string): void {
    this.arena.beginRead(method);
    this.requireName(method);
  }

  private read(method: string, wanted: number): Uint8Array<ArrayBuffer> | true | undefined {
    const { arena, place } = this;
    this.begin(method);
    if (!arena.mayBeRaced) return this.readNow(wanted);
    const stripe = arena.control.stripeOf(place.structure, this.key.hash);
    return readRaced(arena, stripe, () => {
      this.requireName(method);
      return this.readNow(wanted);
    });
  }

  private readNow(wanted: number): Uint8Array<ArrayBuffer> | true | undefined {
    const { buckets, arena, key: keys } = this;
    if (!buckets.find(keys) || this.isExpired()) return undefined;
    if (buckets.isLimited) arena.control.setRecent(keys.hash);
    if (wanted === Wanted.Presence) return true;
    const { entryWindow, valueByte, valueBytes } = buckets;
    const bytes = arena.bytes[entryWindow]!;
    if (arena.isMissing)
      arena.requireLoaded(entryWindow, valueByte >>> 2, Math.ceil(valueBytes / 4));
    const end = valueByte + valueBytes;
    return wanted === Wanted.View ? bytes.subarray(valueByte, end) : bytes.slice(valueByte, end);
  }

  private isExpired(): boolean {
    const { entryWindow, entryWord } = this.buckets;
    const words = this.arena.words[entryWindow]!;
    if ((words[entryWord + 1]! & EXPIRES) === 0) return false;
    return expiryAt(words, entryWord) <= this.parts.now();
  }

  /**
   * Sets an entry. At the map's limits it evicts entries, those that were read lately last.
   *
   * @throws {TypeError} {RangeError} for a bad key, value or option, or an entry above the map's
   * limit or 64 MiB
   * @throws {OutOfMemoryError} {SyscallError} {NotLoadedError} with nothing changed
   */
  set(key: KeyOf[K], value: Uint8Array, given?: Nullable<SetOptions> | null): this {
    const length = lengthOfBytes("value", value);
    if (given != null) requireOptions(given);
    const ttlMs = given?.ttlMs ?? undefined;
    let expiry = -1;
    if (ttlMs !== undefined) {
      checkInteger("ttlMs", ttlMs, 1);
      expiry = this.parts.now() + ttlMs;
    }
    this.key.put(key);
    const { arena } = this;
    arena.beginWrite("set()");
    try {
      this.requireName("set()");
      this.writer.put(value, length, expiry);
      arena.commit();
    } catch (error) {
      arena.rollBack();
      throw error;
    } finally {
      arena.endWrite();
    }
    this.parts.tidy();
    return this;
  }

  private requireName(method: string): void {
    if (this.parts.names.isStale(this.place)) this.parts.names.requireLive(this.place, method);
  }

  /** Removes an entry. False if there was none. @throws as `set` */
  delete(key: KeyOf[K]): boolean {
    this.key.put(key);
    const { arena, buckets } = this;
    const isGone = arena.write("delete()", () => {
      this.requireName("delete()");
      if (!buckets.find(this.key)) return false;
      const wasExpired = this.isExpired();
      this.evictor.remove(this.key.hash);
      mergeBucket(buckets, this.key.hash);
      return !wasExpired;
    });
    this.parts.tidy();
    return isGone;
  }

  /** Sets entries in order, under one lock. If one fails, those before it stay. @throws as `set` */
  setMany(
    entries: Iterable<readonly [KeyOf[K], Uint8Array]>,
    options?: Nullable<SetOptions> | null,
  ): this {
    if (typeof (entries as Iterable<unknown> | null)?.[Symbol.iterator] !== "function")
      throw new TypeError(`Expected entries as [key, value] pairs, got ${showValue(entries)}`);
    this.arena.batch("setMany()", () => {
      for (const entry of entries) {
        if (!Array.isArray(entry))
          throw new TypeError(`Expected entries as [key, value] pairs, got ${showValue(entry)}`);
        this.set(entry[0], entry[1], options);
      }
    });
    return this;
  }

  /**
   * Sets an entry to what `change` returns for a copy of its value; undefined deletes the entry. No
   * other thread writes meanwhile. Returns the new value. @throws as `set`, and what `change`
   * throws
   */
  update(
    key: KeyOf[K],
    change: (value: Uint8Array | undefined) => Uint8Array | undefined,
    options?: Nullable<SetOptions> | null,
  ): Uint8Array | undefined {
    checkFunction("change", change);
    return this.arena.batch("update()", () => {
      const value = change(this.get(key));
      if (value === undefined) this.delete(key);
      else this.set(key, value, options);
      return value;
    });
  }

  /** Removes all entries. @throws as `set` */
  clear(): void {
    this.arena.batch("clear()", () => {
      this.requireName("clear()");
      this.evictor.clear();
    });
    this.parts.tidy();
  }

  /**
   * Moves entries together, and frees the pages that `delete` has left mostly empty. Reads all
   * entries. @throws {NotLoadedError} {ReadOnlyStoreError}
   */
  compact(): void {
    this.arena.batch("compact()", () => {
      this.requireName("compact()");
      this.arena.requireAllLoaded();
      compactEntries(this.parts, this.buckets);
      this.parts.pages.purge();
    });
  }

  /** Removes the entries that have expired. Returns their number. @throws as `set` */
  removeExpired(): number {
    let count = 0;
    this.arena.batch("removeExpired()", () => {
      for (const key of iterate(this.source, "expired")) if (this.dropExpired(key)) count++;
    });
    return count;
  }

  private dropExpired(key: unknown): boolean {
    this.key.put(key);
    return this.arena.write("removeExpired()", () => {
      if (!this.buckets.find(this.key) || !this.isExpired()) return false;
      this.evictor.remove(this.key.hash);
      mergeBucket(this.buckets, this.key.hash);
      return true;
    });
  }

  private get source() {
    const { arena, parts, keyType, place } = this;
    return { arena, parts, keyType, place };
  }

  /**
   * The entries, in no particular order. The map may change meanwhile: an entry that exists
   * throughout comes exactly once, any other at most once. @throws as `get`
   */
  *entries(): Generator<[KeyOf[K], Uint8Array<ArrayBuffer>]> {
    for (const key of iterate(this.source, "live")) {
      const value = this.get(key as KeyOf[K]);
      if (value !== undefined) yield [key as KeyOf[K], value];
    }
  }

  *keys(): Generator<KeyOf[K]> {
    for (const key of iterate(this.source, "live"))
      if (this.has(key as KeyOf[K])) yield key as KeyOf[K];
  }

  *values(): Generator<Uint8Array<ArrayBuffer>> {
    for (const [, value] of this.entries()) yield value;
  }

  forEach(visit: (value: Uint8Array, key: KeyOf[K], map: this) => void): void {
    for (const [key, value] of this.entries()) visit(value, key, this);
  }

  [Symbol.iterator](): Generator<[KeyOf[K], Uint8Array<ArrayBuffer>]> {
    return this.entries();
  }
}
