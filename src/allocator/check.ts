/**
 * Compares the allocator's tables with each other: O(capacity), for tests and for PGALLOC_ASSERT.
 */
import { Word } from "../control/control.ts";
import { assert, InvariantError } from "../errors/errors.ts";
import { checkInvariants } from "../segment/invariants.ts";
import type { SegmentSet } from "../segment/segment-set.ts";
import { FREE, HELD, stateOf, SUB_RELEASED, USED } from "./states.ts";

/**
 * Precondition: the lock is held, or no other thread uses the file.
 * @throws {InvariantError} naming the first difference
 */
export function checkAllocator(set: SegmentSet, words: Int32Array): void {
  try {
    checkInvariants(set);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new InvariantError(`the allocator's tables differ: ${reason}`, { cause: error });
  }
  const pages = { used: 0, waste: 0, held: 0 };
  for (const { start, end, tag, refs } of set) {
    const state = stateOf(tag);
    if (state === USED) {
      pages.used += end - start;
      assert(refs > 0, () => `pages [${start}, ${end}) are used without a reference`);
    } else if (state !== FREE && state !== SUB_RELEASED) {
      pages.waste += end - start;
      if (state === HELD) pages.held += end - start;
    }
  }
  const expectCount = (name: string, word: number, counted: number) =>
    assert(words[word] === counted, () => `${counted} pages are ${name}, ${words[word]} noted`);
  expectCount("used", Word.UsedPages, pages.used);
  expectCount("waste", Word.WastePages, pages.waste);
  expectCount("held", Word.HeldPages, pages.held);
}
