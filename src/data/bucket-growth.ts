/**
 * Grows and shrinks a map's table, bucket by bucket: see buckets.ts. No operation moves more
 * entries than one bucket holds. The directory never shrinks: it keeps 4 bytes for each of the most
 * buckets that the map ever had.
 */
import { CorruptStoreError } from "../errors/store.ts";
import type { Arena } from "./arena.ts";
import { BucketWord, type Buckets, homeOf, MapWord, MAX_DEPTH, SLOTS } from "./buckets.ts";
import { STRIPE_BITS } from "./control.ts";
import { pageAddress, WINDOW_PAGE_BITS, WINDOW_PAGE_MASK, WORDS_PER_PAGE } from "./layout.ts";

/** Two neighbours with at most this many entries together become one bucket. */
const MERGED_ENTRIES = SLOTS >>> 2;
/** A merge changes at most 2^10 words of the directory: the journal can hold those. */
const MERGED_BITS = 10;

/**
 * Splits the bucket of a hash in two, by one or two operations of its own. False if the map is as
 * large as it can be.
 */
export function growBucket(buckets: Buckets, hash: number): boolean {
  const { arena } = buckets;
  buckets.findBucket(hash);
  if (buckets.bucketDepth === buckets.depth) {
    if (buckets.depth === MAX_DEPTH) return false;
    // Not in the split's operation: the split may use pages that this one frees.
    arena.write("set()", () => doubleDirectory(buckets));
  }
  arena.write("set()", () => split(buckets, hash));
  return true;
}

function split(buckets: Buckets, hash: number): void {
  buckets.findBucket(hash);
  const { bucketWindow, bucketWord } = buckets;
  const depth = buckets.bucketDepth;
  const prefix = markPrefix(buckets, hash, depth);
  const low = buckets.addBucket(depth + 1);
  const high = buckets.addBucket(depth + 1);
  distribute(buckets, depth, low, high);
  const span = 2 ** (buckets.depth - depth - 1);
  refer(buckets, prefix * 2 * span, span, low);
  refer(buckets, (prefix * 2 + 1) * span, span, high);
  freeMoved(buckets, bucketWindow, bucketWord);
}

/**
 * Puts the current bucket's slots into two new ones, by the bit after `depth` of their hashes.
 */
function distribute(buckets: Buckets, depth: number, low: number, high: number): void {
  const { arena } = buckets;
  const slots = arena.words[buckets.bucketWindow]!;
  const base = buckets.bucketWord + BucketWord.Slots;
  for (let slot = 0; slot < SLOTS; slot++) {
    const first = slots[base + 2 * slot]!;
    if (first === 0) continue;
    // The slot holds only the low 24 bits. In a small map the entry has the others.
    let hash = first >>> 8;
    if (depth < 8) {
      buckets.look(slot);
      hash = arena.words[buckets.entryWindow]![buckets.entryWord]!;
    }
    const bucket = ((hash >>> (31 - depth)) & 1) === 0 ? low : high;
    append(arena, bucket, first, slots[base + 2 * slot + 1]!);
  }
}

/** Puts a slot into a bucket that nothing refers to yet. */
function append(arena: Arena, bucket: number, first: number, second: number): void {
  const words = arena.words[bucket >>> WINDOW_PAGE_BITS]!;
  const at = (bucket & WINDOW_PAGE_MASK) * WORDS_PER_PAGE;
  let slot = homeOf(first >>> 8);
  while (words[at + BucketWord.Slots + 2 * slot] !== 0) slot = slot === SLOTS - 1 ? 0 : slot + 1;
  words[at + BucketWord.Slots + 2 * slot] = first;
  words[at + BucketWord.Slots + 2 * slot + 1] = second;
  words[at + BucketWord.Count]! += 1;
}

function doubleDirectory(buckets: Buckets): void {
  const { arena, depth } = buckets;
  const old = buckets.header(MapWord.Directory);
  const oldWindow = old >>> WINDOW_PAGE_BITS;
  const oldWord = (old & WINDOW_PAGE_MASK) * WORDS_PER_PAGE;
  const length = 2 ** depth;
  if (oldWord + length > arena.words[oldWindow]!.length)
    throw arena.outside(oldWindow, oldWord + length);
  if (arena.isMissing) arena.requireLoaded(oldWindow, oldWord, length);
  const address = buckets.pages.allocate(Math.ceil((2 * length) / WORDS_PER_PAGE));
  const words = arena.words[address >>> WINDOW_PAGE_BITS]!;
  const word = (address & WINDOW_PAGE_MASK) * WORDS_PER_PAGE;
  const from = arena.words[oldWindow]!;
  for (let i = 0; i < length; i++)
    words[word + 2 * i] = words[word + 2 * i + 1] = from[oldWord + i]!;
  arena.control.markStructure(buckets.place.structure);
  buckets.setHeader(MapWord.Directory, address);
  buckets.setHeader(MapWord.Depth, depth + 1);
  buckets.pages.free(old, Math.max(1, Math.ceil(length / WORDS_PER_PAGE)));
}

/**
 * Merges the current bucket, which is that of `hash`, with the bucket that a split would make of
 * it, if both have few entries. Within an operation; needs no memory.
 */
export function mergeBucket(buckets: Buckets, hash: number): void {
  const { arena, bucketWindow, bucketWord } = buckets;
  const count = arena.get(bucketWindow, bucketWord + BucketWord.Count);
  const depth = buckets.bucketDepth;
  const spanBits = buckets.depth - depth + 1;
  // The neighbour's page may be missing, and that must not fail the caller's operation.
  if (count > MERGED_ENTRIES >>> 1 || depth === 0 || spanBits > MERGED_BITS || arena.isMissing)
    return;
  buckets.findBucket(hash ^ (1 << (32 - depth)));
  const { bucketWindow: window, bucketWord: word } = buckets;
  if (window === bucketWindow && word === bucketWord)
    throw new CorruptStoreError("A map has a bucket in two places");
  const sum = count + arena.get(window, word + BucketWord.Count);
  if (buckets.bucketDepth !== depth || sum > MERGED_ENTRIES) return;
  const prefix = markPrefix(buckets, hash, depth - 1);
  const words = arena.words[bucketWindow]!;
  const base = bucketWord + BucketWord.Slots;
  for (let at = base; at < base + 2 * SLOTS; at += 2)
    if (words[at] !== 0) insert(arena, window, word, words[at]!, words[at + 1]!);
  arena.set(window, word + BucketWord.Count, sum);
  arena.set(window, word + BucketWord.Depth, depth - 1);
  const span = 2 ** spanBits;
  refer(buckets, prefix * span, span, pageAddress(window, word / WORDS_PER_PAGE));
  freeMoved(buckets, bucketWindow, bucketWord);
}

/** Puts a slot into a bucket that is in use. */
function insert(arena: Arena, window: number, word: number, first: number, second: number): void {
  const base = word + BucketWord.Slots;
  let slot = homeOf(first >>> 8);
  for (let n = 0; n < SLOTS; n++) {
    if (arena.get(window, base + 2 * slot) === 0) {
      arena.set(window, base + 2 * slot, first);
      arena.set(window, base + 2 * slot + 1, second);
      return;
    }
    slot = slot === SLOTS - 1 ? 0 : slot + 1;
  }
  throw new CorruptStoreError("A bucket has more entries than it says");
}

/** Has the directory's words from `first` on refer to a bucket. */
function refer(buckets: Buckets, first: number, count: number, bucket: number): void {
  const directory = buckets.header(MapWord.Directory);
  const word = (directory & WINDOW_PAGE_MASK) * WORDS_PER_PAGE + first;
  for (let i = 0; i < count; i++)
    buckets.arena.set(directory >>> WINDOW_PAGE_BITS, word + i, bucket);
}

/** Frees a bucket whose slots have moved to others. */
function freeMoved(buckets: Buckets, window: number, word: number): void {
  buckets.setHeader(MapWord.Moves, (buckets.header(MapWord.Moves) + 1) | 0);
  buckets.pages.free(pageAddress(window, word / WORDS_PER_PAGE), 1);
}

/**
 * Marks every stripe of the hashes that begin with the first `depth` bits of `hash`. Returns those
 * bits.
 */
function markPrefix(buckets: Buckets, hash: number, depth: number): number {
  // Two shifts: a shift by 32 shifts by 0.
  const prefix = (hash >>> 1) >>> (31 - depth);
  const more = STRIPE_BITS - depth;
  const stripe = more > 0 ? prefix << more : prefix >>> -more;
  const { control } = buckets.arena;
  control.markMany(buckets.place.structure, stripe, 1 << Math.max(0, more));
  return prefix;
}
