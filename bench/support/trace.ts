/**
 * The traces, stamps and hashes that every contender of a bench works on.
 * bench/peers/gvisor/README.md defines them, so that a program in another language does exactly the
 * same work.
 */
import { PAGE_SIZE } from "../../src/index.ts";

const MAX_PAGES = 64;
const DEFAULT_STATE = 0x9e3779b9;

/** xorshift32 (Marsaglia 2003): small, stable, the same in any language. */
export class Random {
  private state: number;

  constructor(seed: number) {
    this.state = seed >>> 0 || DEFAULT_STATE;
  }

  next(): number {
    let x = this.state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.state = x >>>= 0;
    return x;
  }

  below(n: number): number {
    return this.next() % n;
  }
}

/** 32-bit FNV-1a over whole words instead of bytes. */
export class WordHash {
  private state = 2166136261;

  add(word: number): void {
    this.state = Math.imul(this.state ^ word, 16777619) >>> 0;
  }

  toString(): string {
    return this.state.toString(16).padStart(8, "0");
  }
}

/**
 * Live ranges of `fill` pages. Operation i replaces live range `slots[i]` by one of `pages[i]`
 * pages (allocations only).
 */
export interface Trace {
  readonly fill: Uint32Array;
  readonly slots: Uint32Array;
  readonly pages: Uint32Array;
  readonly hash: string;
}

export function makeTrace(live: number, ops: number, seed: number, withPages: boolean): Trace {
  const random = new Random(seed);
  const hash = new WordHash();
  const draw = (below: number, plus: number) => {
    const value = plus + random.below(below);
    hash.add(value);
    return value;
  };
  const fill = Uint32Array.from({ length: live }, () => draw(MAX_PAGES, 1));
  const slots = new Uint32Array(ops);
  const pages = new Uint32Array(withPages ? ops : 0);
  for (let i = 0; i < ops; i++) {
    slots[i] = draw(live, 0);
    if (withPages) pages[i] = draw(MAX_PAGES, 1);
  }
  return { fill, slots, pages, hash: hash.toString() };
}

export type Pattern = "dense" | "fragmented";

/**
 * Page i of an image is stamped with index i; "fragmented" never touches the pages with i % 4 = 3.
 */
export function isZeroPage(pattern: Pattern, page: number): boolean {
  return pattern === "fragmented" && page % 4 === 3;
}

/** Bytes of contents that a checkpoint of the image has. */
export function filledBytes(pattern: Pattern, bytes: number): number {
  const pages = bytes / PAGE_SIZE;
  return pattern === "dense" ? bytes : (pages - Math.floor(pages / 4)) * PAGE_SIZE;
}

// 0x9E3779B97F4A7C15, in 16-bit limbs for products that stay exact, and in words for sums.
const FACTOR_LIMBS = [0x7c15, 0x7f4a, 0x79b9, 0x9e37] as const;

/** index × 0x9E3779B97F4A7C15 mod 2^64 as [low, high] words. 0 <= index < 2^32. */
function stampBase(index: number): [number, number] {
  const words: [number, number] = [0, 0];
  let carry = 0;
  FACTOR_LIMBS.forEach((factor, limb) => {
    const sum = factor * index + carry; // below 2^49
    carry = Math.floor(sum / 0x10000);
    words[limb < 2 ? 0 : 1] += (sum % 0x10000) * (limb % 2 === 0 ? 1 : 0x10000);
  });
  return words;
}

/** Stamps pages [first, first + pages of `words`) of an image; `words` begins at page `first`. */
export function stampPages(words: Uint32Array, first: number, pattern: Pattern): void {
  const wordsPerPage = PAGE_SIZE / 4;
  for (let page = 0; page < words.length / wordsPerPage; page++) {
    if (isZeroPage(pattern, first + page)) continue;
    const [low, high] = stampBase(first + page);
    const start = page * wordsPerPage;
    for (let i = 0; i < wordsPerPage; i += 2) {
      const sum = low + 4 * i;
      words[start + i] = sum;
      words[start + i + 1] = sum >= 2 ** 32 ? high + 1 : high;
    }
  }
}

/** Throws unless the last word of the page is that of page `index`'s stamp. */
export function checkStamp(page: Uint8Array, index: number): void {
  const words = new Uint32Array(page.buffer, page.byteOffset + PAGE_SIZE - 8, 2);
  const [low, high] = stampBase(index);
  const sum = low + PAGE_SIZE - 8;
  const wanted = [sum >>> 0, (sum >= 2 ** 32 ? high + 1 : high) >>> 0];
  if (words[0] !== wanted[0] || words[1] !== wanted[1]) {
    throw new Error(
      `Page ${index} holds ${words[1]}:${words[0]} at its end, its stamp is ` +
        `${wanted[1]}:${wanted[0]}`,
    );
  }
}
