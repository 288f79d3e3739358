/**
 * SegmentSet: the keys [0, size) cut into maximal runs of equal value, with first and last run of at least n keys.
 *
 * It answers what gVisor's `pkg/segment` sets answer (find the range that holds a key; split, merge, change ranges; the
 * first or last gap that is large enough), with another structure: not a tree of ranges but three tables indexed by
 * key, so that an operation touches a handful of words however many ranges there are.
 *
 *   records    4 words a key: at a run's first key its length, tag, refs and group; elsewhere stale.
 *   bits       1 bit a key: set where a run starts. Above it, levels of one bit for 32 of the level below ("some bit of
 *              that word is set"), so that the run that holds a key is found by at most log32(capacity) steps back.
 *   summaries  for each searched class a tree of maxima, 8 children a node: leaf w holds the longest run of that class
 *              that starts in keys [32w, 32w + 32). First fit walks down it to the leftmost leaf that suffices, last
 *              fit to the rightmost; a change walks up it until a maximum stays as it was.
 *
 *   capacity = 32 * leaves;  bits of level k+1 = ceil(bits of level k / 32);  nodes above = ceil(nodes / 8)
 *
 * | operation                      | cost                                            |
 * | ------------------------------ | ----------------------------------------------- |
 * | startOf, lengthAt, tagAt ...   | O(1), O(log32 capacity) across a long run       |
 * | split, retag, merge            | O(log8 capacity) when a class maximum changes   |
 * | firstFit, lastFit              | O(log8 capacity)                                |
 *
 * The tables are typed arrays over memory that the caller gives, so they may be shared between threads; the caller
 * holds a lock over every call. Levels stand root first and keys last, so a prefix of each table serves the keys below
 * some size: a table can be reserved for a large capacity and viewed as far as it is used.
 *
 * Invariants (`checkInvariants` derives them again): runs partition [0, size); neighbours differ in value; bit k is set
 * exactly at run starts; every upper bit and every maximum is what the level below implies.
 */

import {
  FANOUT,
  FANOUT_SHIFT,
  RECORD_SHIFT,
  type SegmentLayout,
  type SegmentTables,
  segmentLayout,
  segmentWords,
} from "./layout.ts";

/** Words of a record. */
const LENGTH = 0;
const TAG = 1;
const REFS = 2;
const GROUP = 3;

/** The low bits of a tag are the run's class; classes below `classes` can be searched. */
export const CLASS_MASK = 15;

/** Runs as columns, a row each. */
export interface RunColumns {
  readonly start: ArrayLike<number>;
  readonly length: ArrayLike<number>;
  readonly tag: ArrayLike<number>;
  readonly refs: ArrayLike<number>;
  readonly group: ArrayLike<number>;
}

export class SegmentSet {
  readonly layout: SegmentLayout;
  private records!: Int32Array;
  private bits!: Int32Array;
  private summaries!: readonly Int32Array[];
  private readonly classes: number;
  private readonly bitBase: number;
  private readonly bitBases: Int32Array;
  private readonly summaryBases: Int32Array;
  /** Keys in use: [0, size). With shared tables the owner of the lock carries it from thread to thread. */
  size = 0;

  constructor(layout: SegmentLayout, tables: SegmentTables) {
    this.layout = layout;
    this.classes = tables.summaries.length;
    this.bitBases = Int32Array.from(layout.bitBases);
    this.summaryBases = Int32Array.from(layout.summaryBases);
    this.bitBase = layout.bitBases[0]!;
    this.useTables(tables);
  }

  /** Bytes that `create` needs for `capacity` keys and `classes` searched classes. */
  static byteLength(capacity: number, classes: number): number {
    const words = segmentWords(segmentLayout(capacity), capacity);
    return 4 * (words.records + words.bits + classes * words.summary);
  }

  /**
   * An empty set over `buffer` (zeroed, at least `byteLength(capacity, classes)` bytes; an ArrayBuffer or a
   * SharedArrayBuffer). Grow it with `extend`.
   */
  static create(capacity: number, classes: number, buffer?: ArrayBufferLike): SegmentSet {
    const layout = segmentLayout(capacity);
    const words = segmentWords(layout, capacity);
    const memory = buffer ?? new ArrayBuffer(SegmentSet.byteLength(capacity, classes));
    let offset = 0;
    const take = (count: number) => {
      const table = new Int32Array(memory, offset, count);
      offset += 4 * count;
      return table;
    };
    const records = take(words.records);
    const bits = take(words.bits);
    return new SegmentSet(layout, { records, bits, summaries: Array.from({ length: classes }, () => take(words.summary)) });
  }

  /** Continues on other views of the same memory, larger ones as a rule. */
  useTables(tables: SegmentTables): void {
    this.records = tables.records;
    this.bits = tables.bits;
    this.summaries = tables.summaries;
  }

  /** Adds `count` keys with one value at the end. */
  extend(count: number, tag: number, refs = 0, group = 0): void {
    const start = this.size;
    if (count < 1 || start + count > this.layout.capacity) {
      throw new RangeError(`Cannot extend ${start} keys by ${count}, the capacity is ${this.layout.capacity}`);
    }
    this.size = start + count;
    this.put(start, count, tag, refs, group);
    this.mergeAt(start);
  }

  /**
   * Adds `count` keys at the end: the runs of `runs` from row `first` up to the one that starts behind them, and the value
   * (`tag`, 0, 0) wherever there is none. Returns the first row that was not taken. It leaves what `extend` and an `assign` a
   * row would, in one pass without a search. The pass is flat and gathers a leaf's bits before it stores them, since a
   * restore runs it once, in a process that has compiled nothing yet: 262,144 runs 8 ms, 23 with a call for each.
   *
   * Precondition: rows are ordered and disjoint, and none reaches over either end of the new keys.
   */
  extendWith(count: number, tag: number, runs: RunColumns, first: number): number {
    const { records, classes, size: begin } = this;
    const end = begin + count;
    if (count < 1 || end > this.layout.capacity) {
      throw new RangeError(`Cannot extend ${begin} keys by ${count}, the capacity is ${this.layout.capacity}`);
    }
    const { start: starts, length: lengths, tag: tags, refs, group: groups } = runs;
    const rows = starts.length;
    // The run that is open: it ends where a run of another value begins.
    let open = begin === 0 ? -1 : this.startOf(begin - 1);
    let openTag = open < 0 ? -1 : this.tagAt(open);
    let openRefs = open < 0 ? -1 : this.refsAt(open);
    let openGroup = open < 0 ? 0 : this.groupAt(open);
    let leaf = begin >>> 5;
    let bits = 0;
    let row = first;
    for (let at = begin; at < end; ) {
      const start = row < rows ? starts[row]! : end;
      const taken = start === at && row < rows;
      const runTag = taken ? tags[row]! : tag;
      const runRefs = taken ? refs[row]! : 0;
      const runGroup = taken ? groups[row]! | 0 : 0;
      if (runTag !== openTag || runRefs !== openRefs || runGroup !== openGroup) {
        if (open >= 0) this.closeRun(open, at - open, openTag, classes);
        const record = at << RECORD_SHIFT;
        records[record + TAG] = openTag = runTag;
        records[record + REFS] = openRefs = runRefs;
        records[record + GROUP] = openGroup = runGroup;
        open = at;
        if (at >>> 5 !== leaf) {
          if (bits !== 0) this.setBits(leaf, bits);
          leaf = at >>> 5;
          bits = 0;
        }
        bits |= 1 << (at & 31);
      }
      at = taken ? at + lengths[row++]! : Math.min(start, end);
    }
    this.closeRun(open, end - open, openTag, classes);
    if (bits !== 0) this.setBits(leaf, bits);
    this.size = end;
    return row;
  }

  private closeRun(start: number, length: number, tag: number, classes: number): void {
    this.records[(start << RECORD_SHIFT) + LENGTH] = length;
    const cls = tag & CLASS_MASK;
    if (cls < classes) this.raise(cls, start >>> 5, length);
  }

  /** The first key of the run that holds `key`. 0 <= key < size. */
  startOf(key: number): number {
    const word = key >>> 5;
    const found = this.bits[this.bitBase + word]! & (-1 >>> (31 - (key & 31)));
    return found !== 0 ? (word << 5) | (31 - Math.clz32(found)) : this.startBefore(word);
  }

  /** The last run start in the words before `word`: up the bit levels until one has a bit, then down its last bits. */
  private startBefore(word: number): number {
    const { bits, bitBases } = this;
    let index = word;
    let level = 1;
    let found = bits[bitBases[1]! + (index >>> 5)]! & ((1 << (index & 31)) - 1);
    while (found === 0) {
      index >>>= 5;
      level++;
      found = bits[bitBases[level]! + (index >>> 5)]! & ((1 << (index & 31)) - 1);
    }
    index = ((index >>> 5) << 5) | (31 - Math.clz32(found));
    while (--level >= 0) index = (index << 5) | (31 - Math.clz32(bits[bitBases[level]! + index]!));
    return index;
  }

  isStart(key: number): boolean {
    return (this.bits[this.bitBase + (key >>> 5)]! & (1 << (key & 31))) !== 0;
  }

  // Of the run that starts at `start`:

  lengthAt(start: number): number {
    return this.records[(start << RECORD_SHIFT) + LENGTH]!;
  }

  tagAt(start: number): number {
    return this.records[(start << RECORD_SHIFT) + TAG]!;
  }

  refsAt(start: number): number {
    return this.records[(start << RECORD_SHIFT) + REFS]!;
  }

  groupAt(start: number): number {
    return this.records[(start << RECORD_SHIFT) + GROUP]!;
  }

  /** The start of the first run of class `cls` that has at least `count` keys, or -1. */
  firstFit(cls: number, count: number): number {
    const summary = this.summaries[cls]!;
    const bases = this.summaryBases;
    let level = bases.length - 1;
    if (summary[bases[level]!]! < count) return -1;
    let node = 0;
    while (--level >= 0) {
      node <<= FANOUT_SHIFT;
      const base = bases[level]!;
      while (summary[base + node]! < count) node++;
    }
    return this.fitInLeaf(node, cls, count, false);
  }

  /** The start of the last run of class `cls` that has at least `count` keys, or -1. */
  lastFit(cls: number, count: number): number {
    const summary = this.summaries[cls]!;
    const bases = this.summaryBases;
    let level = bases.length - 1;
    if (summary[bases[level]!]! < count) return -1;
    let node = 0;
    while (--level >= 0) {
      node = (node << FANOUT_SHIFT) + FANOUT - 1;
      const base = bases[level]!;
      while (summary[base + node]! < count) node--;
    }
    return this.fitInLeaf(node, cls, count, true);
  }

  private fitInLeaf(leaf: number, cls: number, count: number, last: boolean): number {
    const { records } = this;
    let word = this.bits[this.bitBase + leaf]!;
    while (word !== 0) {
      const bit = last ? 31 - Math.clz32(word) : 31 - Math.clz32(word & -word);
      word &= ~(1 << bit);
      const start = (leaf << 5) | bit;
      const at = start << RECORD_SHIFT;
      if ((records[at + TAG]! & CLASS_MASK) === cls && records[at + LENGTH]! >= count) return start;
    }
    throw new Error(`Summary of class ${cls} promises ${count} keys in leaf ${leaf}, which has no such run`);
  }

  /** Makes `key` the start of a run (0 <= key <= size), by splitting the one that holds it. */
  split(key: number): void {
    if (key === this.size || this.isStart(key)) return;
    const start = this.startOf(key);
    const at = start << RECORD_SHIFT;
    const { records } = this;
    const length = records[at + LENGTH]!;
    const tag = records[at + TAG]!;
    records[at + LENGTH] = key - start;
    this.put(key, start + length - key, tag, records[at + REFS]!, records[at + GROUP]!);
    const cls = tag & CLASS_MASK;
    if (cls < this.classes) this.lower(cls, start >>> 5, length);
  }

  /** Gives the run at `start` another value. Call `mergeAt` at both its ends afterwards. */
  retag(start: number, tag: number, refs: number, group: number): void {
    const at = start << RECORD_SHIFT;
    const { records } = this;
    const length = records[at + LENGTH]!;
    const before = records[at + TAG]! & CLASS_MASK;
    const after = tag & CLASS_MASK;
    records[at + TAG] = tag;
    records[at + REFS] = refs;
    records[at + GROUP] = group;
    if (before === after) return;
    if (after < this.classes) this.raise(after, start >>> 5, length);
    if (before < this.classes) this.lower(before, start >>> 5, length);
  }

  /** Changes only the count of references of the run at `start`. */
  setRefs(start: number, refs: number): void {
    this.records[(start << RECORD_SHIFT) + REFS] = refs;
  }

  /** Joins the run that starts at `key` to the one before it, if their values are equal. */
  mergeAt(key: number): void {
    if (key === 0 || key >= this.size) return;
    const { records } = this;
    const at = key << RECORD_SHIFT;
    const previous = this.startOf(key - 1);
    const before = previous << RECORD_SHIFT;
    const tag = records[at + TAG]!;
    if (records[before + TAG] !== tag) return;
    if (records[before + REFS] !== records[at + REFS] || records[before + GROUP] !== records[at + GROUP]) return;
    const length = records[at + LENGTH]!;
    const joined = records[before + LENGTH]! + length;
    records[before + LENGTH] = joined;
    this.clearBit(key);
    const cls = tag & CLASS_MASK;
    if (cls < this.classes) {
      this.raise(cls, previous >>> 5, joined);
      if (key >>> 5 !== previous >>> 5) this.lower(cls, key >>> 5, length);
    }
  }

  /** Gives [start, end) one value, whatever runs it held: splits at both ends, merges with equal neighbours. */
  assign(start: number, end: number, tag: number, refs = 0, group = 0): void {
    if (!(start >= 0 && start < end && end <= this.size)) {
      throw new RangeError(`Expected a range within [0, ${this.size}), got [${start}, ${end})`);
    }
    this.split(start);
    this.split(end);
    for (let run = start + this.lengthAt(start); run < end; ) {
      const length = this.lengthAt(run);
      this.remove(run, length);
      run += length;
    }
    const length = this.lengthAt(start);
    const cls = this.tagAt(start) & CLASS_MASK;
    this.put(start, end - start, tag, refs, group);
    if (cls < this.classes) this.lower(cls, start >>> 5, length);
    this.mergeAt(start);
    this.mergeAt(end);
  }

  /** Calls `visit(start, end, tag, refs, group)` for every run of [start, end), clipped to it, in order. */
  visit(
    start: number,
    end: number,
    visit: (start: number, end: number, tag: number, refs: number, group: number) => void,
  ): void {
    for (let run = this.startOf(start); run < end; ) {
      const next = run + this.lengthAt(run);
      visit(Math.max(run, start), Math.min(next, end), this.tagAt(run), this.refsAt(run), this.groupAt(run));
      run = next;
    }
  }

  private put(start: number, length: number, tag: number, refs: number, group: number): void {
    const { records } = this;
    const at = start << RECORD_SHIFT;
    records[at + LENGTH] = length;
    records[at + TAG] = tag;
    records[at + REFS] = refs;
    records[at + GROUP] = group;
    this.setBit(start);
    const cls = tag & CLASS_MASK;
    if (cls < this.classes) this.raise(cls, start >>> 5, length);
  }

  private remove(start: number, length: number): void {
    const cls = this.tagAt(start) & CLASS_MASK;
    this.clearBit(start);
    if (cls < this.classes) this.lower(cls, start >>> 5, length);
  }

  private setBit(key: number): void {
    this.setBits(key >>> 5, 1 << (key & 31));
  }

  /** Sets bits of a word of the keys' own level, and what they imply above. */
  private setBits(leaf: number, mask: number): void {
    const { bits, bitBases } = this;
    let index = leaf;
    let set = mask;
    for (let level = 0; level < bitBases.length; level++) {
      const at = bitBases[level]! + index;
      const word = bits[at]!;
      bits[at] = word | set;
      if (word !== 0) return;
      set = 1 << (index & 31);
      index >>>= 5;
    }
  }

  private clearBit(key: number): void {
    const { bits, bitBases } = this;
    let index = key;
    for (let level = 0; level < bitBases.length; level++) {
      const at = bitBases[level]! + (index >>> 5);
      const word = bits[at]! & ~(1 << (index & 31));
      bits[at] = word;
      if (word !== 0) return;
      index >>>= 5;
    }
  }

  /** A run of `length` keys now starts in `leaf`. */
  private raise(cls: number, leaf: number, length: number): void {
    const summary = this.summaries[cls]!;
    const bases = this.summaryBases;
    let node = leaf;
    for (let level = 0; level < bases.length; level++) {
      const at = bases[level]! + node;
      if (summary[at]! >= length) return;
      summary[at] = length;
      node >>>= FANOUT_SHIFT;
    }
  }

  /** A run of `length` keys that started in `leaf` is gone, shorter, or of another class. The tables say so already. */
  private lower(cls: number, leaf: number, length: number): void {
    const summary = this.summaries[cls]!;
    const bases = this.summaryBases;
    let at = bases[0]! + leaf;
    if (summary[at]! > length) return;
    let maximum = this.longestInLeaf(leaf, cls);
    let node = leaf;
    for (let level = 1; ; level++) {
      if (summary[at] === maximum) return;
      summary[at] = maximum;
      if (level === bases.length) return;
      const first = bases[level - 1]! + ((node >>> FANOUT_SHIFT) << FANOUT_SHIFT);
      maximum = summary[first]!;
      for (let child = first + 1; child < first + FANOUT; child++) {
        const value = summary[child]!;
        if (value > maximum) maximum = value;
      }
      node >>>= FANOUT_SHIFT;
      at = bases[level]! + node;
    }
  }

  private longestInLeaf(leaf: number, cls: number): number {
    const { records } = this;
    let longest = 0;
    let word = this.bits[this.bitBase + leaf]!;
    while (word !== 0) {
      const start = (leaf << 5) | (31 - Math.clz32(word & -word));
      word &= word - 1;
      const at = start << RECORD_SHIFT;
      if ((records[at + TAG]! & CLASS_MASK) === cls && records[at + LENGTH]! > longest) longest = records[at + LENGTH]!;
    }
    return longest;
  }

  /** Derives everything again from the runs and throws on the first difference. For tests: O(capacity). */
  checkInvariants(): void {
    const { bits, bitBases, summaries, summaryBases, size } = this;
    const expectedBits = new Int32Array(bits.length);
    const expected = summaries.map((summary) => new Int32Array(summary.length));
    const fresh = new SegmentSet(this.layout, { records: this.records, bits: expectedBits, summaries: expected });
    let previous = -1;
    for (let start = 0; start < size; ) {
      const length = this.lengthAt(start);
      if (!(length >= 1 && start + length <= size)) throw new Error(`Run at ${start} has length ${length}, size is ${size}`);
      if (previous >= 0 && this.sameValue(previous, start))
        throw new Error(`Runs at ${previous} and ${start} have equal values`);
      fresh.setBit(start);
      const cls = this.tagAt(start) & CLASS_MASK;
      if (cls < this.classes) fresh.raise(cls, start >>> 5, length);
      previous = start;
      start += length;
    }
    for (let i = 0; i < bits.length; i++) {
      if (bits[i] !== expectedBits[i])
        throw new Error(`Bit word ${i} is ${bits[i]}, expected ${expectedBits[i]} (bases ${bitBases})`);
    }
    summaries.forEach((summary, cls) => {
      for (let i = 0; i < summary.length; i++) {
        const want = expected[cls]![i];
        if (summary[i] !== want)
          throw new Error(`Maximum ${i} of class ${cls} is ${summary[i]}, expected ${want} (bases ${summaryBases})`);
      }
    });
  }

  private sameValue(a: number, b: number): boolean {
    return this.tagAt(a) === this.tagAt(b) && this.refsAt(a) === this.refsAt(b) && this.groupAt(a) === this.groupAt(b);
  }
}
