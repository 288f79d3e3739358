/**
 * Compaction of a map: moves entries from spans that are mostly free into the span that new entries
 * are cut from. A span whose last entry has moved is freed.
 *
 * It needs no memory: the span of an entry that moves has a free block, so its class has one.
 */
import { type Buckets, SLOTS } from "./buckets.ts";
import type { StoreParts } from "./parts.ts";

/** The slots of one operation: the journal can hold what it changes. */
const SLOTS_PER_STEP = 64;

/** Operations of its own, within a batch. The pages of the map are loaded. */
export function compactEntries(parts: StoreParts, buckets: Buckets): void {
  for (let hash = 0; hash < 2 ** 32; ) {
    buckets.findBucket(hash | 0);
    for (let first = 0; first < SLOTS; first += SLOTS_PER_STEP) {
      parts.arena.write("compact()", () => {
        for (let slot = first; slot < Math.min(SLOTS, first + SLOTS_PER_STEP); slot++)
          if (buckets.look(slot)) moveEntry(parts, buckets);
      });
    }
    hash = buckets.nextAfter(hash);
  }
}

/** Moves the current entry if its span is mostly free. Within an operation. */
function moveEntry({ arena, blocks }: StoreParts, buckets: Buckets): void {
  const { entryWindow, entryWord, valueByte, valueBytes } = buckets;
  if (!blocks.isSparse(entryWindow, entryWord)) return;
  const words = arena.words[entryWindow]!;
  const bytes = valueByte - 4 * entryWord + valueBytes;
  blocks.allocate(bytes, words[entryWord]!, words[entryWord + 1]!);
  const { window, word } = blocks;
  const contents = words.subarray(entryWord + 2, entryWord + ((bytes + 3) >>> 2));
  arena.words[window]!.set(contents, word + 2);
  arena.control.mark(arena.control.stripeOf(buckets.place.structure, words[entryWord]!));
  buckets.setSlot(buckets.tagAt(buckets.slot), window, word);
  blocks.free(entryWindow, entryWord);
}
