/**
 * An ordered list of disjoint ranges of a user's own offsets, any safe integers: ranges that touch are one. Two arrays and a
 * binary search: changes at the end, where evictions take from, cost O(log n), others move what is behind them.
 *
 * Source: evictableRangeSet in gVisor's pgalloc.go.
 */

/** A half-open range `[start, end)` of offsets that mean something to their user only. */
export interface EvictableRange {
  readonly start: number;
  readonly end: number;
}

export class RangeList {
  private readonly starts: number[] = [];
  private readonly ends: number[] = [];

  get length(): number {
    return this.starts.length;
  }

  /** Adds [start, end); what of it is there already stays. */
  add(start: number, end: number): void {
    if (start >= end) return;
    // All ranges that overlap or touch it become one with it.
    const first = lowerBound(this.ends, start);
    const last = lowerBound(this.starts, end + 1);
    const from = first < last ? Math.min(start, this.starts[first]!) : start;
    const to = first < last ? Math.max(end, this.ends[last - 1]!) : end;
    this.starts.splice(first, last - first, from);
    this.ends.splice(first, last - first, to);
  }

  /** Removes [start, end), as far as it is there. */
  remove(start: number, end: number): void {
    if (start >= end) return;
    const first = lowerBound(this.ends, start + 1);
    const last = lowerBound(this.starts, end);
    if (first >= last) return;
    const keptStarts: number[] = [];
    const keptEnds: number[] = [];
    if (this.starts[first]! < start) {
      keptStarts.push(this.starts[first]!);
      keptEnds.push(start);
    }
    if (this.ends[last - 1]! > end) {
      keptStarts.push(end);
      keptEnds.push(this.ends[last - 1]!);
    }
    this.starts.splice(first, last - first, ...keptStarts);
    this.ends.splice(first, last - first, ...keptEnds);
  }

  clear(): void {
    this.starts.length = 0;
    this.ends.length = 0;
  }

  /** Takes out the last range; null if there is none. */
  takeLast(): EvictableRange | null {
    const start = this.starts.pop();
    const end = this.ends.pop();
    return start === undefined || end === undefined ? null : { start, end };
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
