/**
 * The tags of common pages are small, so a SegmentSet keeps their runs in one byte. A larger tag
 * would only take time and memory: the untouched owners prove that none is needed.
 */
import { expect, test } from "bun:test";
import {
  FREE,
  HELD,
  HUGE,
  KIND_SHIFT,
  kindOf,
  RELEASING,
  SUB_RELEASED,
  stateOf,
  USED,
  WASTE,
} from "../../src/allocator/states.ts";
import { MemoryKind } from "../../src/index.ts";
import { MAX_TAG, SegmentSet } from "../../src/segment/index.ts";
import { MAX_KIND } from "../../src/pages/units.ts";

const KINDS = [MemoryKind.System, MemoryKind.Anonymous, MemoryKind.PageCache, MemoryKind.Tmpfs];

function newSet(): SegmentSet {
  const set = SegmentSet.create(100, 0);
  set.extend(100, FREE);
  return set;
}

test("runs of the usual kinds with few references need no owner", () => {
  const set = newSet();
  for (const huge of [0, HUGE]) {
    for (const state of [WASTE, HELD, SUB_RELEASED, FREE]) set.assign(10, 20, state | huge);
    // The releases of the first participant.
    set.assign(10, 20, RELEASING | huge, 1);
    for (const kind of KINDS)
      for (const refs of [1, 2]) set.assign(10, 20, USED | huge | (kind << KIND_SHIFT), refs);
  }
  expect(set.tables.owners().every((word) => word === 0)).toBe(true);
});

test("runs with other kinds, more references or groups keep them in an owner", () => {
  const set = newSet();
  for (const [kind, refs, group] of [
    [MAX_KIND, 1, 0],
    [MemoryKind.Ramdiskfs, 2, 0],
    [1, 4, 0],
    [1, 1, -1],
  ] as const) {
    const tag = USED | HUGE | (kind << KIND_SHIFT);
    expect(tag).toBeLessThanOrEqual(MAX_TAG);
    set.assign(10, 20, tag, refs, group);
    expect(set.segmentAt(15)).toEqual({ start: 10, end: 20, tag, refs, group });
    expect([stateOf(tag), kindOf(tag)]).toEqual([USED, kind]);
    expect(set.tables.owners().some((word) => word !== 0)).toBe(true);
    set.tables.owners().fill(0);
    set.assign(10, 20, FREE);
  }
});
