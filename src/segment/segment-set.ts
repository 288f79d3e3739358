/**
 * SegmentSet: the keys [0, size) as maximal runs of equal value, with first and last fit.
 *
 * It answers the same questions as gVisor's `pkg/segment` sets: which range holds a key, and which
 * is the first or last gap that is large enough. It splits, merges and changes ranges. gVisor has a
 * tree of ranges; here the tables are indexed by key, so an operation touches a handful of words at
 * any number of ranges. runs.ts describes the tables and reads them; this file changes them.
 *
 * | operation                     | cost                                                     |
 * | ----------------------------- | -------------------------------------------------------- |
 * | startOf, endOf                | O(1); O(log32 capacity) across a long run                |
 * | seek                          | as these; O(1) if it is the run that was sought last     |
 * | tagAt, refsAt, groupAt        | O(1)                                                     |
 * | replace, split, retag, merge  | O(1); O(log8 capacity) when the maximum of a class moves |
 * | assign                        | as replace, for each run in the range                    |
 * | firstFit, lastFit             | O(log8 capacity)                                         |
 * | memory                        | 1.1 bytes a key, and 0.14 for each searched class; 12    |
 * |                               | more at the start of a run whose value is not small      |
 *
 * Invariants (invariants.ts derives them again): runs partition [0, size); neighbours differ in
 * value; bit k is set exactly at run starts; every upper bit and every maximum is what the level
 * below implies.
 */
import { segmentLayout, segmentLengths } from "./layout.ts";
import { Runs } from "./runs.ts";
import {
  byteOf,
  CLASS_MASK,
  checkTag,
  hasSameValue,
  OWNED,
  REFS_SHIFT,
  type RunColumns,
} from "./value.ts";

/** The keys from 0 to a size, as runs of equal value, with first and last fit. */
export class SegmentSet extends Runs {
  /** Bytes that `create` needs for `capacity` keys and `classes` searched classes. */
  static byteLength(capacity: number, classes: number): number {
    const { values, owners, bits, summary } = segmentLengths(segmentLayout(capacity), capacity);
    return 4 * (owners + bits + classes * summary) + values;
  }

  /**
   * An empty set; grow it with `extend`.
   *
   * @param capacity the most keys it can have, 1 to MAX_CAPACITY
   * @param classes classes 0 to classes - 1 can be searched with `firstFit` and `lastFit`; the
   * class of a tag is its low 4 bits
   * @param buffer zeroed, at least `byteLength(capacity, classes)` bytes: an ArrayBuffer or a
   * SharedArrayBuffer
   * @throws {RangeError} naming the argument that is out of range
   */
  static create(capacity: number, classes: number, buffer?: ArrayBufferLike): SegmentSet {
    const layout = segmentLayout(capacity);
    if (!Number.isInteger(classes) || classes < 0 || classes > CLASS_MASK + 1) {
      throw new RangeError(
        `Expected classes to be an integer in [0, ${CLASS_MASK + 1}], got ${classes}`,
      );
    }
    const lengths = segmentLengths(layout, capacity);
    const memory = buffer ?? new ArrayBuffer(SegmentSet.byteLength(capacity, classes));
    let offset = 0;
    const take = (count: number) => {
      const table = new Int32Array(memory, offset, count);
      offset += 4 * count;
      return table;
    };
    const owners = take(lengths.owners);
    const bits = take(lengths.bits);
    const summaries = Array.from({ length: classes }, () => take(lengths.summary));
    // The bytes come last, so that all words are aligned.
    const values = new Uint8Array(memory, offset, lengths.values);
    return new SegmentSet(layout, {
      values,
      bits,
      classes,
      owners: () => owners,
      summary: (cls) => summaries[cls]!,
    });
  }

  /**
   * Adds `count` keys with one value at the end. Here and below: 0 <= tag <= MAX_TAG; refs and
   * group are 32-bit integers.
   * @throws {RangeError} beyond the capacity, or if count or tag is not an integer in range
   */
  extend(count: number, tag: number, refs = 0, group = 0): void {
    const start = this.size;
    if (!(Number.isInteger(count) && count >= 1 && start + count <= this.layout.capacity)) {
      throw new RangeError(
        `Cannot extend ${start} keys by ${count}, the capacity is ${this.layout.capacity}`,
      );
    }
    checkTag(tag);
    this.forget();
    this.size = start + count;
    this.put(start, tag, refs, group);
    const cls = tag & CLASS_MASK;
    if (cls < this.classes) this.longestOf(cls).raise(start >>> 5, count);
    this.mergeAt(start);
  }

  /**
   * Adds `count` keys at the end. They get the runs of `runs` from row `first` up to the first that
   * starts after the new keys; keys between runs get the value (`tag`, 0, 0). Returns the first
   * row that was not used. The result is that of `extend` and one `assign` for each row, in one
   * pass without a search. The pass is flat and gathers a leaf's bits before it stores them,
   * because a restore runs it once, in a process that has compiled nothing yet: 262,144 runs take 8
   * ms, and 23 ms with a call for each.
   *
   * Precondition: rows are ordered and disjoint, and none crosses an end of the new keys.
   */
  extendWith(count: number, tag: number, runs: RunColumns, first: number): number {
    const { classes, size: begin } = this;
    const end = begin + count;
    if (count < 1 || end > this.layout.capacity) {
      throw new RangeError(
        `Cannot extend ${begin} keys by ${count}, the capacity is ${this.layout.capacity}`,
      );
    }
    this.forget();
    const { start: starts, length: lengths, tag: tags, refs, group: groups } = runs;
    const rows = starts.length;
    // The open run. It ends where a run of another value begins.
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
        if (open >= 0 && (openTag & CLASS_MASK) < classes)
          this.longestOf(openTag & CLASS_MASK).raise(open >>> 5, at - open);
        open = at;
        openTag = runTag;
        openRefs = runRefs;
        openGroup = runGroup;
        this.write(at, runTag, runRefs, runGroup);
        if (at >>> 5 !== leaf) {
          if (bits !== 0) this.starts.addToLeaf(leaf, bits);
          leaf = at >>> 5;
          bits = 0;
        }
        bits |= 1 << (at & 31);
      }
      at = taken ? at + lengths[row++]! : Math.min(start, end);
    }
    if ((openTag & CLASS_MASK) < classes)
      this.longestOf(openTag & CLASS_MASK).raise(open >>> 5, end - open);
    if (bits !== 0) this.starts.addToLeaf(leaf, bits);
    this.size = end;
    return row;
  }

  /**
   * Gives [start, end), which lies within one run, another value: cuts that run and joins equal
   * neighbours. Precondition: 0 <= start < end <= endOf(start).
   */
  replace(start: number, end: number, tag: number, refs: number, group: number): void {
    this.replaceIn(this.startOf(start), this.endOf(start), start, end, tag, refs, group);
  }

  /** As `replace`, if the caller knows the run that holds [start, end): [run, runEnd). */
  replaceIn(
    run: number,
    runEnd: number,
    start: number,
    end: number,
    tag: number,
    refs: number,
    group: number,
  ): void {
    const { classes } = this;
    this.forget();
    const oldCls = this.values[run]! & CLASS_MASK;
    if (end < runEnd) {
      this.putCopy(end, run);
      if (oldCls < classes) this.longestOf(oldCls).raise(end >>> 5, runEnd - end);
    }
    const value = byteOf(tag, refs, group);
    const cls = tag & CLASS_MASK;
    let from = start;
    let to = end;
    const previous = start > run ? run : start > 0 ? this.startOf(start - 1) : -1;
    if (previous >= 0 && this.hasValue(previous, value, tag, refs, group)) {
      if (start === run) this.starts.remove(start);
      from = previous;
    } else if (start > run) {
      this.put(start, tag, refs, group);
    } else {
      this.write(start, tag, refs, group);
    }
    if (end < this.size && this.hasValue(end, value, tag, refs, group)) {
      to = this.endOf(end);
      this.starts.remove(end);
    }
    if (cls < classes) {
      this.longestOf(cls).raise(from >>> 5, to - from);
      if (to > end) this.lower(cls, end >>> 5, to - end);
    }
    if (oldCls < classes) this.lower(oldCls, run >>> 5, runEnd - run);
  }

  /**
   * Adds `by`, which is 1 or -1, to the refs of [start, end), which lies within the run [run,
   * runEnd). The result is that of `replaceIn`. It calls `replaceIn` in two rare cases: if the
   * value does not fit in a byte before and after, or if the class is searched.
   */
  addRefsIn(run: number, runEnd: number, start: number, end: number, by: number): void {
    const { values, starts } = this;
    const value = values[run]!;
    const next = value + (by << REFS_SHIFT);
    if (value >= OWNED || next >= OWNED || next < 0 || (value & CLASS_MASK) < this.classes) {
      const refs = (this.refsAt(run) + by) | 0;
      this.replaceIn(run, runEnd, start, end, this.tagAt(run), refs, this.groupAt(run));
      return;
    }
    if (start > run && end < runEnd) {
      // [start, end) is in the middle: the run continues on both sides.
      values[end] = value;
      starts.add(end);
      values[start] = next;
      starts.add(start);
      this.aroundStart = run;
      this.aroundEnd = runEnd;
      this.runStart = start;
      this.runEnd = end;
      return;
    }
    const isCut = this.aroundStart < start && start === this.runStart && end === this.runEnd;
    if (isCut && values[this.aroundStart] === next) {
      // The reverse. A thread that dies before the last step, here and below, leaves two equal
      // neighbours; each key has its value.
      starts.remove(start);
      starts.remove(end);
      this.runStart = this.aroundStart;
      this.runEnd = this.aroundEnd;
      return;
    }
    this.forget();
    if (end < runEnd) {
      values[end] = value;
      starts.add(end);
    }
    if (start === run && start > 0 && values[starts.atOrBefore(start - 1)] === next) {
      starts.remove(start);
    } else {
      values[start] = next;
      if (start > run) starts.add(start);
    }
    if (end === runEnd && end < this.size && values[end] === next) starts.remove(end);
  }

  /**
   * Makes `key` (0 <= key <= size) the start of a run: splits the run that holds it. Equal
   * neighbours are not joined.
   */
  private split(key: number): void {
    if (key === this.size || this.starts.has(key)) return;
    const start = this.startOf(key);
    const end = this.endOf(key);
    this.putCopy(key, start);
    const cls = this.values[start]! & CLASS_MASK;
    if (cls >= this.classes) return;
    this.longestOf(cls).raise(key >>> 5, end - key);
    this.lower(cls, start >>> 5, end - start);
  }

  /** Joins the run that starts at `key` to the one before it, if their values are equal. */
  private mergeAt(key: number): void {
    if (key === 0 || key >= this.size) return;
    const previous = this.startOf(key - 1);
    if (!hasSameValue(this.current, previous, key)) return;
    const end = this.endOf(key);
    const cls = this.values[key]! & CLASS_MASK;
    this.starts.remove(key);
    if (cls >= this.classes) return;
    this.longestOf(cls).raise(previous >>> 5, end - previous);
    this.lower(cls, key >>> 5, end - key);
  }

  /**
   * Gives [start, end) one value, over any runs: cuts at both ends, joins equal neighbours.
   *
   * @throws {RangeError} unless 0 <= start < end <= size and tag are integers in range; nothing
   * changes then
   */
  assign(start: number, end: number, tag: number, refs = 0, group = 0): void {
    if (
      !(
        Number.isInteger(start) &&
        Number.isInteger(end) &&
        start >= 0 &&
        start < end &&
        end <= this.size
      )
    ) {
      throw new RangeError(`Expected a range within [0, ${this.size}), got [${start}, ${end})`);
    }
    checkTag(tag);
    if (end <= this.endOf(start)) {
      this.replace(start, end, tag, refs, group);
      return;
    }
    this.forget();
    this.split(start);
    this.split(end);
    const before = this.values[start]! & CLASS_MASK;
    const after = tag & CLASS_MASK;
    const length = this.endOf(start) - start;
    this.write(start, tag, refs, group);
    // Raise before the run grows: if a maximum is derived anew meanwhile, the stored one must not
    // be below it.
    if (after < this.classes) this.longestOf(after).raise(start >>> 5, end - start);
    for (let run = start + length; run < end; ) {
      const next = this.endOf(run);
      const removed = this.values[run]! & CLASS_MASK;
      this.starts.remove(run);
      if (removed < this.classes) this.lower(removed, run >>> 5, next - run);
      run = next;
    }
    if (before < this.classes) this.lower(before, start >>> 5, length);
    // Raise again: the maximum may have been derived while the run was shorter.
    if (after < this.classes) this.longestOf(after).raise(start >>> 5, end - start);
    this.mergeAt(end);
    this.mergeAt(start);
  }
}
