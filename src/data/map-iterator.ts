/**
 * Iterates a map that changes meanwhile. It visits buckets in the order of their hashes, and takes
 * a bucket's keys at once: a split or merge may move an entry later, but within the hashes that it
 * has visited. So an entry that exists throughout comes exactly once, and none comes twice.
 */
import { CorruptStoreError } from "../errors/store.ts";
import type { Arena } from "./arena.ts";
import { Buckets, ENTRY_WORDS, EXPIRES, expiryAt, SLOTS } from "./buckets.ts";
import type { HeaderPlace } from "./header.ts";
import { Keys, type KeyType } from "./keys.ts";
import type { StoreParts } from "./parts.ts";

export interface MapSource {
  readonly arena: Arena;
  readonly parts: StoreParts;
  readonly keyType: KeyType;
  readonly place: HeaderPlace;
}

/** Keys of the map: of entries that have not expired, or of those that have. */
export function* iterate(source: MapSource, which: "live" | "expired"): Generator<unknown> {
  const { arena, parts, place } = source;
  const buckets = new Buckets(arena, parts.pages, place);
  const keys = new Keys(source.keyType, 0, 0);
  for (let hash = 0; hash < 2 ** 32; ) {
    const found: unknown[] = [];
    const visit = () => {
      if (parts.names.isStale(place)) parts.names.requireLive(place, "next()");
      return collect(source, buckets, keys, hash, which, found);
    };
    if (arena.mayBeRaced) hash = arena.readLocked(visit);
    else {
      arena.beginRead("next()");
      hash = visit();
    }
    yield* found;
  }
}

/** Adds the keys of the bucket of `hash`, from that hash on; returns where the next one begins. */
function collect(
  { arena, parts }: MapSource,
  buckets: Buckets,
  keys: Keys,
  hash: number,
  which: "live" | "expired",
  found: unknown[],
): number {
  buckets.findBucket(hash | 0);
  const next = buckets.nextAfter(hash);
  const now = parts.now();
  for (let slot = 0; slot < SLOTS; slot++) {
    if (!buckets.look(slot)) continue;
    const { entryWindow, entryWord } = buckets;
    const words = arena.words[entryWindow]!;
    // A bucket that was merged with the previous one holds entries that came already.
    if (words[entryWord]! >>> 0 < hash) continue;
    const lengths = words[entryWord + 1]!;
    const expires = (lengths & EXPIRES) !== 0;
    const keyWord = entryWord + ENTRY_WORDS + (expires ? 2 : 0);
    const length = lengths & 0xffff;
    if (keys.fixedBytes >= 0 && length !== keys.fixedBytes)
      throw new CorruptStoreError(`A key of type ${keys.type} has ${length} bytes`);
    if (arena.isMissing)
      arena.requireLoaded(entryWindow, entryWord, keyWord - entryWord + (length >> 2) + 1);
    const hasExpired = expires && expiryAt(words, entryWord) <= now;
    if (hasExpired === (which === "expired"))
      found.push(keys.decode(arena.bytes[entryWindow]!, 4 * keyWord, 4 * keyWord + length));
  }
  return next;
}
