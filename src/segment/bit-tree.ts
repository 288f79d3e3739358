/**
 * BitTree: a set of keys as bits. Above the keys are levels with one bit for each 32 bits of the
 * level below ("some bit of that word is set"). So the next member before or after a key takes at
 * most 2 log32(capacity) steps to find, at any distance.
 *
 * All words are in one Int32Array, root first and keys last (layout.ts). Threads may share them.
 * Invariant: a bit of an upper level is set exactly if the word that it summarizes is not 0. The
 * root is one word.
 */
export class BitTree {
  private readonly words: Int32Array;
  private readonly bases: Int32Array;
  private readonly base: number;

  constructor(words: Int32Array, bases: readonly number[]) {
    this.words = words;
    this.bases = new Int32Array(bases);
    this.base = bases[0]!;
  }

  has(key: number): boolean {
    return (this.words[this.base + (key >>> 5)]! & (1 << (key & 31))) !== 0;
  }

  /** The members among keys [32 * leaf, 32 * leaf + 32), as bits. */
  leaf(leaf: number): number {
    return this.words[this.base + leaf]!;
  }

  /** The last member at or before `key`. Precondition: there is one. */
  atOrBefore(key: number): number {
    const leaf = key >>> 5;
    const found = this.words[this.base + leaf]! & (-1 >>> (31 - (key & 31)));
    return found !== 0 ? (leaf << 5) | (31 - Math.clz32(found)) : this.lastBefore(leaf);
  }

  /** The first member after `key`, or `none`. */
  after(key: number, none: number): number {
    const leaf = key >>> 5;
    const found = this.words[this.base + leaf]! & (-2 << (key & 31));
    return found !== 0
      ? (leaf << 5) | (31 - Math.clz32(found & -found))
      : this.firstAfter(leaf, none);
  }

  /**
   * The last member in the leaves before `leaf`. Goes up until a level has a bit, then down along
   * the last bits.
   */
  private lastBefore(leaf: number): number {
    const { words, bases } = this;
    let index = leaf;
    let level = 1;
    let found = words[bases[1]! + (index >>> 5)]! & ((1 << (index & 31)) - 1);
    while (found === 0) {
      index >>>= 5;
      level++;
      found = words[bases[level]! + (index >>> 5)]! & ((1 << (index & 31)) - 1);
    }
    index = ((index >>> 5) << 5) | (31 - Math.clz32(found));
    while (--level >= 0) index = (index << 5) | (31 - Math.clz32(words[bases[level]! + index]!));
    return index;
  }

  private firstAfter(leaf: number, none: number): number {
    const { words, bases } = this;
    let index = leaf;
    let level = 1;
    let found = 0;
    for (; ; level++) {
      if (level >= bases.length) return none;
      found = words[bases[level]! + (index >>> 5)]! & (-2 << (index & 31));
      if (found !== 0) break;
      index >>>= 5;
    }
    index = ((index >>> 5) << 5) | (31 - Math.clz32(found & -found));
    while (--level >= 0) {
      const below = words[bases[level]! + index]!;
      index = (index << 5) | (31 - Math.clz32(below & -below));
    }
    return index;
  }

  add(key: number): void {
    this.addToLeaf(key >>> 5, 1 << (key & 31));
  }

  /** Adds the keys of one leaf whose bits are set in `mask`. */
  addToLeaf(leaf: number, mask: number): void {
    const { words, bases } = this;
    let index = leaf;
    let set = mask;
    for (let level = 0; level < bases.length; level++) {
      const at = bases[level]! + index;
      const word = words[at]!;
      words[at] = word | set;
      if (word !== 0) return;
      set = 1 << (index & 31);
      index >>>= 5;
    }
  }

  remove(key: number): void {
    const { words, bases } = this;
    let index = key;
    for (let level = 0; level < bases.length; level++) {
      const at = bases[level]! + (index >>> 5);
      const word = words[at]! & ~(1 << (index & 31));
      words[at] = word;
      if (word !== 0) return;
      index >>>= 5;
    }
  }
}
