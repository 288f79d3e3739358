/**
 * The allocator's state at one instant, as a checkpoint's columns. The lock is held for one pass
 * over the runs (131,072 of them: 3 ms), so the pass makes only numbers.
 */
import type { Allocator } from "../allocator/allocator.ts";
import { HUGE, kindOf, SUB_RELEASED, stateOf, USED } from "../allocator/states.ts";
import { PAGES_PER_CHUNK } from "../pages/units.ts";
import type { StoredRuns } from "../checkpoint/format.ts";

const FIRST_ROWS = 1024;

/** Runs as rows of numbers in the order of `StoredRuns`. */
class RunRows {
  private columns = Array.from({ length: 6 }, () => new Uint32Array(FIRST_ROWS));
  private count = 0;

  push(
    start: number,
    length: number,
    state: number,
    refs: number,
    kind: number,
    group: number,
  ): void {
    const at = this.count++;
    if (at === this.columns[0]!.length) this.columns = this.columns.map(grown);
    const [starts, lengths, states, allRefs, kinds, groups] = this.columns as Six;
    starts[at] = start;
    lengths[at] = length;
    states[at] = state;
    allRefs[at] = refs;
    kinds[at] = kind;
    groups[at] = group;
  }

  finish(): StoredRuns {
    const [start, length, state, refs, kind, group] = this.columns.map((column) =>
      column.subarray(0, this.count),
    ) as Six;
    return { start, length, state, refs, kind, group };
  }
}

type Six = [Uint32Array, Uint32Array, Uint32Array, Uint32Array, Uint32Array, Uint32Array];

function grown(column: Uint32Array): Uint32Array<ArrayBuffer> {
  const larger = new Uint32Array(2 * column.length);
  larger.set(column);
  return larger;
}

/** Pages that are neither used nor sub-released are free in the checkpoint. */
export function collectRuns(allocator: Allocator): {
  chunkHuge: Uint8Array;
  runs: StoredRuns;
  usedPages: number;
} {
  const rows = new RunRows();
  let usedPages = 0;
  allocator.lock();
  try {
    const { set } = allocator;
    const chunkHuge = new Uint8Array(set.size / PAGES_PER_CHUNK);
    for (let start = 0, length = 0; start < set.size; start += length) {
      length = set.lengthAt(start);
      const tag = set.tagAt(start);
      if ((tag & HUGE) !== 0) {
        chunkHuge.fill(
          1,
          Math.floor(start / PAGES_PER_CHUNK),
          Math.ceil((start + length) / PAGES_PER_CHUNK),
        );
      }
      const state = stateOf(tag);
      if (state !== USED && state !== SUB_RELEASED) continue;
      if (state === USED) usedPages += length;
      rows.push(start, length, state, set.refsAt(start), kindOf(tag), set.groupAt(start) >>> 0);
    }
    return { chunkHuge, runs: rows.finish(), usedPages };
  } finally {
    allocator.unlock();
  }
}

/** The runs of used pages. */
export function usedRuns(runs: StoredRuns): { start: Uint32Array; length: Uint32Array } {
  const isUsed = (_: number, i: number) => runs.state[i] === USED;
  return { start: runs.start.filter(isUsed), length: runs.length.filter(isUsed) };
}
