/** Options of a map's methods. */
import type { KeyType } from "./keys.ts";

export interface MapOptions<K extends KeyType = KeyType> {
  /** The type of keys. Default: "string". Stored: a map has one key type for life. */
  readonly key?: K | undefined;
  /** The most entries. More evict entries that were not read lately. Stored; 0 for no limit. */
  readonly maxEntries?: number | undefined;
  /** The most bytes of entries' blocks. Stored; 0 for no limit. */
  readonly maxBytes?: number | undefined;
}

export interface SetOptions {
  /** Milliseconds until the entry expires. */
  readonly ttlMs?: number | undefined;
}
