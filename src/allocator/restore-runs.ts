/** Fills a new allocator with the runs of a checkpoint. */
import { Word } from "../control/control.ts";
import { assert } from "../errors/errors.ts";
import { PAGES_PER_CHUNK } from "../pages/units.ts";
import type { RunColumns } from "../segment/value.ts";
import type { Allocator } from "./allocator.ts";
import { expectCounts } from "./check.ts";
import { FREE, HUGE, stateOf, USED, WASTE } from "./states.ts";

/**
 * Grows the file in one pass by `chunkHuge.length` chunks (1: of huge pages) that hold `runs`.
 * `tag` is the runs' state and kind, without HUGE. Precondition: runs are ordered, disjoint, and
 * each within chunks of one page size.
 */
export function restoreRunsInto(
  allocator: Allocator,
  chunkHuge: Uint8Array,
  runs: RunColumns & { readonly tag: Uint32Array },
): void {
  const { set, words } = allocator;
  allocator.lock();
  try {
    let row = 0;
    for (let chunk = 0; chunk < chunkHuge.length; ) {
      const huge = chunkHuge[chunk]! & HUGE;
      let end = chunk + 1;
      while (end < chunkHuge.length && chunkHuge[end] === chunkHuge[chunk]) end++;
      const pages = (end - chunk) * PAGES_PER_CHUNK;
      if (huge !== 0) {
        const limit = set.size + pages;
        for (let i = row; i < runs.start.length && runs.start[i]! < limit; i++)
          runs.tag[i]! |= HUGE;
      }
      allocator.growTables(end - chunk, huge);
      row = set.extendWith(pages, FREE | huge, runs, row);
      Atomics.store(words, Word.SizePages, set.size);
      chunk = end;
    }
    assert(row === runs.start.length, () => `${runs.start.length - row} runs lie in no chunk`);
    for (let i = 0; i < row; i++) {
      if (stateOf(runs.tag[i]!) === USED) words[Word.UsedPages]! += runs.length[i]!;
      if (stateOf(runs.tag[i]!) === WASTE) words[Word.WastePages]! += runs.length[i]!;
    }
    expectCounts(words);
  } finally {
    allocator.unlock();
  }
}
