/**
 * Free and sub-released pages that became committed, because a save read them after they were
 * released: reading a hole of a memory file makes the kernel allocate a page of zeros. They become
 * waste, so the releaser decommits them again.
 */
import { Word } from "../control/control.ts";
import type { Allocator } from "./allocator.ts";
import { FREE, HUGE, SUB_RELEASED, stateOf, WASTE } from "./states.ts";

/** Looks at the file's data during one hold of the lock. */
const LOOKS_MAX = 64;

/** Makes such runs waste if the kernel has committed pages in them. True if there were any. */
export function wasteTouchedFree(allocator: Allocator): boolean {
  const { set, words, backing } = allocator;
  let hasFound = false;
  for (let page = 0; ; ) {
    allocator.lock();
    try {
      for (let looks = 0; looks < LOOKS_MAX; looks++) {
        page = backing.nextTouched(page);
        if (page >= set.size) return hasFound;
        const run = set.startOf(page);
        const end = set.endOf(run);
        const tag = set.tagAt(run);
        if (stateOf(tag) === FREE || stateOf(tag) === SUB_RELEASED) {
          set.replace(run, end, WASTE | (tag & HUGE), 0, 0);
          words[Word.WastePages]! += end - run;
          hasFound = true;
        }
        page = end;
      }
    } finally {
      allocator.unlock();
    }
  }
}
