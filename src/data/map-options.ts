/** What a map's methods take. */
import type { KeyType } from "./keys.ts";

export interface MapOptions<K extends KeyType = KeyType> {
  /** The type of keys. Default: "string". Stored: a map has one key type for life. */
  readonly key?: K | undefined;
  /** The most entries; more evict those that were not read lately. Stored; 0 for no limit. */
  readonly maxEntries?: number | undefined;
  /** The most bytes of entries, with their blocks' waste. Stored; 0 for no limit. */
  readonly maxBytes?: number | undefined;
}

export interface SetOptions {
  /** The entry expires after so many milliseconds. */
  readonly ttlMs?: number | undefined;
}
