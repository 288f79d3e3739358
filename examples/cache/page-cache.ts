/**
 * A cache of blobs of one size in pages of a MemoryFile. Entries that are not in use are evictable:
 * the file asks for them back when the host is short of memory, and a later `use` loads them again.
 */
import type { EvictableMemoryUser, EvictableRange, FileRange, MemoryFile } from "pgalloc";
import { MemoryKind } from "pgalloc";

interface Entry {
  readonly key: string;
  readonly range: FileRange;
  users: number;
}

export class PageCache implements EvictableMemoryUser {
  hits = 0;
  misses = 0;
  evictions = 0;
  readonly #file: MemoryFile;
  readonly #entryBytes: number;
  readonly #load: (key: string, destination: Uint8Array) => void;
  /** Entry by slot. A slot is the cache's own offset of an entry, which `evict` receives. */
  readonly #slots: (Entry | undefined)[] = [];
  readonly #slotOf = new Map<string, number>();
  readonly #freeSlots: number[] = [];

  constructor(
    file: MemoryFile,
    entryBytes: number,
    load: (key: string, destination: Uint8Array) => void,
  ) {
    this.#file = file;
    this.#entryBytes = entryBytes;
    this.#load = load;
  }

  get size(): number {
    return this.#slotOf.size;
  }

  /**
   * Calls `read` with the entry's bytes. They stay in memory until it returns or its promise
   * settles.
   */
  async use<T>(key: string, read: (bytes: Uint8Array) => T | Promise<T>): Promise<T> {
    const known = this.#slotOf.get(key);
    if (known !== undefined) this.hits++;
    const slot = known ?? this.#insert(key);
    const entry = this.#slots[slot]!;
    // In use, so it must not be evicted.
    if (entry.users++ === 0) this.#file.markUnevictable(this, { start: slot, end: slot + 1 });
    try {
      return await read(this.#file.view(entry.range));
    } finally {
      if (--entry.users === 0) this.#file.markEvictable(this, { start: slot, end: slot + 1 });
    }
  }

  #insert(key: string): number {
    this.misses++;
    const range = this.#file.allocate(this.#entryBytes, { kind: MemoryKind.PageCache });
    this.#load(key, this.#file.view(range));
    const slot = this.#freeSlots.pop() ?? this.#slots.length;
    this.#slots[slot] = { key, range, users: 0 };
    this.#slotOf.set(key, slot);
    return slot;
  }

  /** Drops the entries of the slots, except those that are in use again. */
  evict({ start, end }: EvictableRange): void {
    for (let slot = start; slot < end; slot++) {
      const entry = this.#slots[slot];
      if (entry === undefined || entry.users > 0) continue;
      this.#file.decRef(entry.range);
      this.#slots[slot] = undefined;
      this.#slotOf.delete(entry.key);
      this.#freeSlots.push(slot);
      this.evictions++;
    }
  }
}
