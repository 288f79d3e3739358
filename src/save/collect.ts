/**
 * The allocator's state at one instant, as a checkpoint's columns. The lock is held for one pass
 * over the runs (131,072 of them: 3 ms), so the pass makes only numbers.
 */
import type { Allocator } from "../allocator/allocator.ts";
import { COUNTED } from "../allocator/waste.ts";
import { FREE, HUGE, kindOf, SUB_RELEASED, stateOf, USED } from "../allocator/states.ts";
import { PAGES_PER_CHUNK, PAGES_PER_HUGE_PAGE } from "../pages/units.ts";
import type { StoredRuns } from "../checkpoint/format.ts";

const FIRST_ROWS = 1024;

/** Runs as rows of numbers in the order of `StoredRuns`. */
export class StoredRunRows {
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

/**
 * Pages that are neither used nor sub-released get the state that their release gives them: free,
 * or sub-released if other pages of their huge page are in use.
 */
export function collectRuns(allocator: Allocator): {
  chunkHuge: Uint8Array;
  runs: StoredRuns;
  usedPages: number;
} {
  const { runs, hasReleased, ...collected } = collectUnjoined(allocator);
  return { ...collected, runs: hasReleased ? joinSubReleased(runs) : runs };
}

/** `hasReleased`: waste and releasing pages are sub-released, and their runs are not joined. */
function collectUnjoined(allocator: Allocator) {
  const rows = new StoredRunRows();
  let usedPages = 0;
  let hasReleased = false;
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
      if (state !== USED && state !== SUB_RELEASED) {
        if (state === FREE || (tag & HUGE) === 0) continue;
        hasReleased = true;
        rows.push(start, length, SUB_RELEASED, 0, 0, COUNTED);
        continue;
      }
      if (state === USED) usedPages += length;
      rows.push(start, length, state, set.refsAt(start), kindOf(tag), set.groupAt(start) >>> 0);
    }
    return { chunkHuge, runs: rows.finish(), usedPages, hasReleased };
  } finally {
    allocator.unlock();
  }
}

/**
 * Joins neighbouring sub-released runs, which then hold no whole huge page: such a page is free.
 */
export function joinSubReleased(runs: StoredRuns): StoredRuns {
  const { start, length, state, refs, kind, group } = runs;
  const rows = new StoredRunRows();
  const add = (first: number, end: number) => {
    if (first < end) rows.push(first, end - first, SUB_RELEASED, 0, 0, COUNTED);
  };
  for (let i = 0; i < start.length; i++) {
    if (state[i] !== SUB_RELEASED || group[i] !== COUNTED) {
      rows.push(start[i]!, length[i]!, state[i]!, refs[i]!, kind[i]!, group[i]!);
      continue;
    }
    const first = start[i]!;
    let end = first + length[i]!;
    while (start[i + 1] === end && state[i + 1] === SUB_RELEASED && group[i + 1] === COUNTED)
      end += length[++i]!;
    const firstWhole = Math.ceil(first / PAGES_PER_HUGE_PAGE) * PAGES_PER_HUGE_PAGE;
    const lastWhole = end - (end % PAGES_PER_HUGE_PAGE);
    if (firstWhole < lastWhole) {
      add(first, firstWhole);
      add(lastWhole, end);
    } else {
      add(first, end);
    }
  }
  return rows.finish();
}

/** The runs of used pages. */
export function usedRuns(runs: StoredRuns): { start: Uint32Array; length: Uint32Array } {
  const isUsed = (_: number, i: number) => runs.state[i] === USED;
  return { start: runs.start.filter(isUsed), length: runs.length.filter(isUsed) };
}
