/** A cursor over the ordered ranges of one of gVisor's interval sets. */
import type { RangeColumns } from "./metadata.ts";
import { U64_MAX } from "./wire.ts";

/** A place in an ordered set that only moves upwards. */
export class Cursor {
  /** The range at or after the place. */
  index = 0;
  /** True if the place is in that range. */
  inside = false;
  /** The next place where `inside` changes or the range ends. */
  border = 0;

  constructor(private readonly ranges: RangeColumns) {}

  seek(at: number): void {
    const { start, end } = this.ranges;
    while (this.index < end.length && end[this.index]! <= at) this.index++;
    const first = this.index < start.length ? start[this.index]! : U64_MAX;
    this.inside = first <= at;
    this.border = this.inside ? end[this.index]! : first;
  }

  /** The start of the gap around the place. Precondition: the place is not `inside`. */
  get gapStart(): number {
    return this.index === 0 ? 0 : this.ranges.end[this.index - 1]!;
  }
}
