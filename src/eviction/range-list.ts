/**
 * An ordered list of disjoint ranges of a user's own offsets, any safe integers. Ranges that touch
 * are joined.
 *
 * The ranges are in blocks of at most `blockLength`, so a change takes two binary searches and a
 * splice of a few hundred numbers, at any number of ranges. No block is empty. All ranges of a
 * block are before those of the next.
 *
 * Source: evictableRangeSet in gVisor's pgalloc.go, which is a B-tree.
 */

/** A half-open range `[start, end)` of offsets. Only their user knows their meaning. */
export interface EvictableRange {
  readonly start: number;
  readonly end: number;
}

interface Block {
  readonly starts: number[];
  readonly ends: number[];
}

const BLOCK_LENGTH = 256;

export class RangeList {
  private readonly blocks: Block[] = [];
  private readonly blockLength: number;

  constructor(blockLength = BLOCK_LENGTH) {
    this.blockLength = blockLength;
  }

  get isEmpty(): boolean {
    return this.blocks.length === 0;
  }

  /** Adds [start, end). Parts that are there already stay. */
  add(start: number, end: number): void {
    if (start >= end) return;
    const at = this.blockOf(start);
    // All ranges that overlap or touch it become one range with it.
    const cut = this.cut(at, start, end + 1);
    this.insert(
      at,
      cut === null ? start : Math.min(start, cut.start),
      cut === null ? end : Math.max(end, cut.end),
    );
  }

  /** Removes the parts of [start, end) that are there. */
  remove(start: number, end: number): void {
    if (start >= end) return;
    const at = this.blockOf(start + 1);
    const cut = this.cut(at, start + 1, end);
    if (cut === null) return;
    if (cut.start < start) this.insert(at, cut.start, start);
    if (cut.end > end) this.insert(this.blockOf(end), end, cut.end);
  }

  clear(): void {
    this.blocks.length = 0;
  }

  /** Removes and returns the last range; null if there is none. */
  takeLast(): EvictableRange | null {
    const last = this.blocks.at(-1);
    if (last === undefined) return null;
    const range = { start: last.starts.pop()!, end: last.ends.pop()! };
    if (last.starts.length === 0) this.blocks.pop();
    return range;
  }

  /**
   * The first block with a range that ends at `bound` or later; the number of blocks if there is
   * none.
   */
  private blockOf(bound: number): number {
    let low = 0;
    let high = this.blocks.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const { ends } = this.blocks[middle]!;
      if (ends[ends.length - 1]! < bound) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /**
   * From block `at` on, removes the ranges that end at `from` or later and start before `to`.
   * Returns the stretch that they covered.
   */
  private cut(at: number, from: number, to: number): EvictableRange | null {
    let start = -1;
    let end = -1;
    for (let block = this.blocks[at]; block !== undefined; block = this.blocks[at]) {
      const first = lowerBound(block.ends, from);
      const last = lowerBound(block.starts, to);
      if (first >= last) break;
      if (start < 0) start = block.starts[first]!;
      end = block.ends[last - 1]!;
      const isWhole = last === block.starts.length;
      block.starts.splice(first, last - first);
      block.ends.splice(first, last - first);
      if (block.starts.length === 0) this.blocks.splice(at, 1);
      else if (isWhole) at++;
      else break;
    }
    return start < 0 ? null : { start, end };
  }

  /** Inserts a range that touches no other, in block `at` or before it. */
  private insert(at: number, start: number, end: number): void {
    const block = this.blocks[Math.min(at, this.blocks.length - 1)];
    if (block === undefined) {
      this.blocks.push({ starts: [start], ends: [end] });
      return;
    }
    const index = lowerBound(block.starts, start);
    block.starts.splice(index, 0, start);
    block.ends.splice(index, 0, end);
    if (block.starts.length <= this.blockLength) return;
    const half = block.starts.length >>> 1;
    const upper = { starts: block.starts.splice(half), ends: block.ends.splice(half) };
    this.blocks.splice(this.blocks.indexOf(block) + 1, 0, upper);
  }
}

/** The index of the first value that is not below `bound`. */
function lowerBound(values: readonly number[], bound: number): number {
  let low = 0;
  let high = values.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (values[middle]! < bound) low = middle + 1;
    else high = middle;
  }
  return low;
}
