/**
 * Checks a SegmentSet's invariants: derives every table again from the runs and compares.
 * O(capacity), for tests and for PGALLOC_ASSERT.
 */
import type { SegmentSet } from "./segment-set.ts";
import { CLASS_MASK } from "./value.ts";

/** @throws {Error} naming the first difference */
export function checkInvariants(set: SegmentSet): void {
  const { layout, size, tables } = set;
  const bits = new Int32Array(tables.bits.length);
  const summaries = Array.from(
    { length: tables.classes },
    (_, cls) => new Int32Array(tables.summary(cls).length),
  );
  setRuns(set, bits, summaries);
  compare("Bit word", tables.bits, bits);
  for (const [cls, summary] of summaries.entries())
    compare(`Maximum of class ${cls},`, tables.summary(cls), summary);
  if (layout.capacity < size)
    throw new Error(`Size ${size} is beyond the capacity ${layout.capacity}`);
}

/** Fills empty tables with what the runs imply. Checks neighbours and lengths on the way. */
function setRuns(set: SegmentSet, bits: Int32Array, summaries: readonly Int32Array[]): void {
  const { bitBases, summaryBases } = set.layout;
  let previous = -1;
  for (let start = 0; start < set.size; ) {
    const end = set.endOf(start);
    if (!(end > start && end <= set.size))
      throw new Error(`Run at ${start} ends at ${end}, size is ${set.size}`);
    if (set.startOf(end - 1) !== start)
      throw new Error(`Run at ${start} ends at ${end}, whose run starts elsewhere`);
    if (previous >= 0 && hasEqualValues(set, previous, start)) {
      throw new Error(`Runs at ${previous} and ${start} have equal values`);
    }
    for (let level = 0, index = start; level < bitBases.length; level++, index >>>= 5) {
      bits[bitBases[level]! + (index >>> 5)]! |= 1 << (index & 31);
    }
    const summary = summaries[set.tagAt(start) & CLASS_MASK];
    for (
      let level = 0, node = start >>> 5;
      summary !== undefined && level < summaryBases.length;
      level++, node >>>= 3
    ) {
      const at = summaryBases[level]! + node;
      summary[at] = Math.max(summary[at]!, end - start);
    }
    previous = start;
    start = end;
  }
}

function hasEqualValues(set: SegmentSet, a: number, b: number): boolean {
  return (
    set.tagAt(a) === set.tagAt(b) &&
    set.refsAt(a) === set.refsAt(b) &&
    set.groupAt(a) === set.groupAt(b)
  );
}

function compare(what: string, got: Int32Array, want: Int32Array): void {
  // A closure for each element takes ten times as long, and under PGALLOC_ASSERT every destroyed
  // file is checked.
  for (let at = 0; at < got.length; at++)
    if (got[at] !== want[at]) throw new Error(`${what} ${at} is ${got[at]}, expected ${want[at]}`);
}
