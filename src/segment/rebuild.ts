/**
 * Repairs a SegmentSet whose thread died between two stores of an operation.
 *
 * Three things are primary: the lowest level of bits (where runs start), and at each start the
 * value's byte and its owner (tag, refs, group). SegmentSet writes a value before it sets the bit,
 * and a run whose bit is cleared belongs to the run before it. So at every instant these tables
 * describe a complete state. The only exception is the three stores of an owner and the store of
 * its byte, and a thread cannot end between those. Each key has its value from before the operation
 * or from after it. One operation differs: `assign` over runs of different values may leave the
 * first run's value in all of them.
 *
 * Upper bits and maxima are derived anew, and equal neighbours are joined. O(keys viewed). Words
 * that are right are not written, because untouched tables take no memory.
 */
import { FANOUT, FANOUT_SHIFT, type SegmentLayout, type SegmentTables } from "./layout.ts";
import type { SegmentSet } from "./segment-set.ts";
import { CLASS_MASK, hasSameValue } from "./value.ts";

/**
 * Precondition: `set.size` and `set.tables` are right.
 * @throws {Error} if no run starts at key 0
 */
export function rebuildTables(set: SegmentSet): void {
  const { layout, tables, size } = set;
  joinRuns(layout, tables, size);
  rebuildBits(layout, tables);
  for (let cls = 0; cls < tables.classes; cls++) rebuildSummary(set, tables.summary(cls), cls);
}

/** Removes starts at or after `size`, and starts whose value equals that of the run before. */
function joinRuns(layout: SegmentLayout, tables: SegmentTables, size: number): void {
  const { bits } = tables;
  const base = layout.bitBases[0]!;
  let previous = -1;
  for (let at = base; at < bits.length; at++) {
    for (let rest = bits[at]!; rest !== 0; rest &= rest - 1) {
      const bit = 31 - Math.clz32(rest & -rest);
      const key = ((at - base) << 5) | bit;
      if (key >= size || (previous >= 0 && hasSameValue(tables, previous, key))) {
        bits[at]! &= ~(1 << bit);
        continue;
      }
      if (previous < 0 && key !== 0)
        throw new Error(`No run starts at key 0, the first starts at ${key}`);
      previous = key;
    }
  }
  if (previous < 0 && size > 0) throw new Error(`No run starts in ${size} keys`);
}

function rebuildBits({ bitBases }: SegmentLayout, { bits }: SegmentTables): void {
  let below = bitBases[0]!;
  let count = bits.length - below;
  for (const base of bitBases.slice(1)) {
    const words = Math.ceil(count / 32);
    for (let word = 0; word < words; word++) {
      let derived = 0;
      const last = Math.min(count, (word + 1) << 5);
      for (let child = word << 5; child < last; child++)
        if (bits[below + child] !== 0) derived |= 1 << (child & 31);
      writeIfOther(bits, base + word, derived);
    }
    below = base;
    count = words;
  }
}

/** Precondition: the bits are right. */
function rebuildSummary(set: SegmentSet, summary: Int32Array, cls: number): void {
  const { bits, values } = set.tables;
  const { bitBases, summaryBases } = set.layout;
  let below = summaryBases[0]!;
  let count = summary.length - below;
  for (let leaf = 0; leaf < count; leaf++) {
    let longest = 0;
    for (let rest = bits[bitBases[0]! + leaf] ?? 0; rest !== 0; rest &= rest - 1) {
      const start = (leaf << 5) | (31 - Math.clz32(rest & -rest));
      if ((values[start]! & CLASS_MASK) === cls)
        longest = Math.max(longest, set.endOf(start) - start);
    }
    writeIfOther(summary, below + leaf, longest);
  }
  for (const base of summaryBases.slice(1)) {
    const nodes = Math.ceil(count / FANOUT);
    for (let node = 0; node < nodes; node++) {
      let longest = 0;
      const first = below + (node << FANOUT_SHIFT);
      for (let child = first; child < first + FANOUT; child++)
        longest = Math.max(longest, summary[child]!);
      writeIfOther(summary, base + node, longest);
    }
    below = base;
    count = nodes;
  }
}

function writeIfOther(table: Int32Array, at: number, value: number): void {
  if (table[at] !== value) table[at] = value;
}
