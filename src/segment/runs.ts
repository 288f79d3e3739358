/**
 * Runs: the tables of a SegmentSet, and how to read them.
 *
 *   bits       1 bit for each key, set where a run starts, as a BitTree. The run that holds a key,
 *              and its end, are at most 2 log32(capacity) steps away. Lengths follow from the bits.
 *   values     1 byte for each key (value.ts). At a run's first key it holds tag and refs, if both
 *              are small and group is 0; else the tag's low bits. Stale at all other keys.
 *   owners     3 words for each key: tag, refs and group of runs whose byte cannot hold them.
 *   summaries  a MaxTree for each searched class: leaf w holds the longest run of that class that
 *              starts in keys [32w, 32w + 32). First fit descends to the leftmost leaf that is long
 *              enough, last fit to the rightmost. A change ascends while a maximum changes.
 *
 *   capacity = 32 * leaves
 *   bits of level k + 1 = ceil(bits of level k / 32)
 *   nodes above = ceil(nodes / 8)
 *
 * So most runs are one byte and change by one store, and two such runs are equal if their bytes
 * are. Finding, cutting and joining touch two or three cache lines, which neighbours share. With a
 * word for each key, freeing and allocating one of 100,000 runs of 32 keys took a sixth longer.
 *
 * The caller provides the memory of the tables. Threads may share it; the caller holds a lock
 * during every call. A table can be reserved for a large capacity and viewed only as far as it is
 * used, because a prefix of it serves the keys below some size (layout.ts).
 */
import { BitTree } from "./bit-tree.ts";
import { OWNER_WORDS, type SegmentLayout, type SegmentTables } from "./layout.ts";
import { MaxTree } from "./max-tree.ts";
import {
  byteOf,
  CLASS_MASK,
  OWNED,
  REFS_SHIFT,
  type Segment,
  SMALL_TAG_MASK,
  setOwner,
  type VisitRun,
} from "./value.ts";

export class Runs {
  readonly layout: SegmentLayout;
  protected values!: Uint8Array;
  protected starts!: BitTree;
  /**
   * For each searched class, the longest run that starts in each leaf of 32 keys. Read it through
   * `longestOf`.
   */
  protected longest!: (MaxTree | undefined)[];
  protected current!: SegmentTables;
  protected readonly classes: number;
  /** The end of the run that firstFit or lastFit found last. */
  fitEnd = 0;
  /** The run that `seek` found last or `addRefsIn` made. If runEnd is 0, none is known. */
  runStart = 0;
  runEnd = 0;
  /**
   * The run from which `addRefsIn` cut the known run, if it cut in the middle and nothing changed
   * since. There is none if aroundStart equals runStart.
   */
  protected aroundStart = 0;
  protected aroundEnd = 0;
  /** Keys in use: [0, size). With shared tables, each owner of the lock hands it to the next. */
  size = 0;

  constructor(layout: SegmentLayout, tables: SegmentTables) {
    this.layout = layout;
    this.classes = tables.classes;
    this.useTables(tables);
  }

  /** The tables in use. */
  get tables(): SegmentTables {
    return this.current;
  }

  /** Continues on other views of the same memory, usually larger ones. */
  useTables(tables: SegmentTables): void {
    this.forget();
    this.current = tables;
    this.values = tables.values;
    this.starts = new BitTree(tables.bits, this.layout.bitBases);
    this.longest = new Array<undefined>(tables.classes).fill(undefined);
  }

  protected longestOf(cls: number): MaxTree {
    this.longest[cls] ??= new MaxTree(this.current.summary(cls), this.layout.summaryBases);
    return this.longest[cls];
  }

  /** The first key of the run that holds `key`. 0 <= key < size. */
  startOf(key: number): number {
    return this.starts.atOrBefore(key);
  }

  /** One past the last key of the run that holds `key`. 0 <= key < size. */
  endOf(key: number): number {
    return this.starts.after(key, this.size);
  }

  /**
   * Finds the run that holds `key` (0 <= key < size): [runStart, runEnd). The run found last needs
   * no search. Pinning and unpinning pages returns to it, and to the run around it.
   */
  seek(key: number): void {
    if (key >= this.runStart && key < this.runEnd) return;
    this.runStart = this.aroundStart = this.starts.atOrBefore(key);
    this.runEnd = this.starts.after(key, this.size);
  }

  /**
   * Drops what `seek` found. Every change of runs calls this, and so must a thread that takes the
   * lock after another thread had it.
   */
  forget(): void {
    this.runEnd = 0;
  }

  // Of the run that starts at `start`:
  lengthAt(start: number): number {
    return this.endOf(start) - start;
  }

  tagAt(start: number): number {
    const value = this.values[start]!;
    return value < OWNED ? value & SMALL_TAG_MASK : this.current.owners()[start * OWNER_WORDS]!;
  }

  refsAt(start: number): number {
    const value = this.values[start]!;
    return value < OWNED ? value >>> REFS_SHIFT : this.current.owners()[start * OWNER_WORDS + 1]!;
  }

  groupAt(start: number): number {
    return this.values[start]! < OWNED ? 0 : this.current.owners()[start * OWNER_WORDS + 2]!;
  }

  /** The run that holds `key`. @throws {RangeError} unless 0 <= key < size */
  segmentAt(key: number): Segment {
    if (!(Number.isInteger(key) && key >= 0 && key < this.size))
      throw new RangeError(`Expected a key in [0, ${this.size}), got ${key}`);
    const start = this.startOf(key);
    return {
      start,
      end: this.endOf(start),
      tag: this.tagAt(start),
      refs: this.refsAt(start),
      group: this.groupAt(start),
    };
  }

  /** All runs, in order. The set must not change meanwhile. */
  *[Symbol.iterator](): Generator<Segment> {
    for (let start = 0; start < this.size; start = this.endOf(start)) yield this.segmentAt(start);
  }

  /** The start of the first run of class `cls` that has at least `count` keys, or -1. */
  firstFit(cls: number, count: number): number {
    const leaf = this.longestOf(cls).first(count);
    return leaf < 0 ? -1 : this.fitInLeaf(leaf, cls, count, false);
  }

  /** The start of the last run of class `cls` that has at least `count` keys, or -1. */
  lastFit(cls: number, count: number): number {
    const leaf = this.longestOf(cls).last(count);
    return leaf < 0 ? -1 : this.fitInLeaf(leaf, cls, count, true);
  }

  protected fitInLeaf(leaf: number, cls: number, count: number, last: boolean): number {
    const { values } = this;
    const word = this.starts.leaf(leaf);
    for (let rest = word; rest !== 0; ) {
      const bit = last ? 31 - Math.clz32(rest) : 31 - Math.clz32(rest & -rest);
      rest &= ~(1 << bit);
      const start = (leaf << 5) | bit;
      if ((values[start]! & CLASS_MASK) !== cls) continue;
      const end = this.endOf(start);
      if (end - start < count) continue;
      this.fitEnd = end;
      return start;
    }
    throw new Error(
      `Summary of class ${cls} promises ${count} keys in leaf ${leaf}, which has no such run`,
    );
  }

  /**
   * Calls `visit(start, end, tag, refs, group)` for every run of [start, end), clipped to it, in
   * order.
   */
  visit(start: number, end: number, visit: VisitRun): void {
    for (let run = this.startOf(start); run < end; ) {
      const next = this.endOf(run);
      visit(
        Math.max(run, start),
        Math.min(next, end),
        this.tagAt(run),
        this.refsAt(run),
        this.groupAt(run),
      );
      run = next;
    }
  }

  /** `value` is the byte of (tag, refs, group). */
  protected hasValue(
    start: number,
    value: number,
    tag: number,
    refs: number,
    group: number,
  ): boolean {
    if (this.values[start] !== value) return false;
    if (value < OWNED) return true;
    const owners = this.current.owners();
    const at = start * OWNER_WORDS;
    return owners[at] === tag && owners[at + 1] === refs && owners[at + 2] === group;
  }

  protected write(start: number, tag: number, refs: number, group: number): void {
    const value = byteOf(tag, refs, group);
    if (value >= OWNED) setOwner(this.current, start, tag, refs, group);
    this.values[start] = value;
  }

  /**
   * Starts a run at `start`. The bit is stored last: a thread that dies before it has changed
   * nothing.
   */
  protected put(start: number, tag: number, refs: number, group: number): void {
    this.write(start, tag, refs, group);
    this.starts.add(start);
  }

  /** Starts a run at `start` with the value of the run at `from`. */
  protected putCopy(start: number, from: number): void {
    const value = this.values[from]!;
    if (value >= OWNED)
      setOwner(this.current, start, this.tagAt(from), this.refsAt(from), this.groupAt(from));
    this.values[start] = value;
    this.starts.add(start);
  }

  /**
   * Updates the maxima after a run of `length` keys that started in `leaf` is gone, shorter, or of
   * another class. The tables already hold the change.
   */
  protected lower(cls: number, leaf: number, length: number): void {
    const longest = this.longestOf(cls);
    if (longest.at(leaf) <= length) longest.lower(leaf, this.longestInLeaf(leaf, cls));
  }

  protected longestInLeaf(leaf: number, cls: number): number {
    const { values } = this;
    let longest = 0;
    for (let rest = this.starts.leaf(leaf); rest !== 0; rest &= rest - 1) {
      const start = (leaf << 5) | (31 - Math.clz32(rest & -rest));
      if ((values[start]! & CLASS_MASK) !== cls) continue;
      const length = this.endOf(start) - start;
      if (length > longest) longest = length;
    }
    return longest;
  }
}
