/**
 * The allocator's invariants. `expectCounts` is always on, where pages are released, saved,
 * restored or repaired. The other checks are for PGALLOC_ASSERT.
 */
import { Word } from "../control/control.ts";
import { assert, InvariantError } from "../errors/errors.ts";
import { checkInvariants } from "../segment/invariants.ts";
import type { SegmentSet } from "../segment/segment-set.ts";
import { FREE, HELD, RELEASING, stateOf, SUB_RELEASED, USED } from "./states.ts";

/** Lock held. O(1). @throws {InvariantError} unless the counts of pages can be true together */
export function expectCounts(words: Int32Array): void {
  const size = words[Word.SizePages]!;
  const used = words[Word.UsedPages]!;
  const waste = words[Word.WastePages]!;
  const held = words[Word.HeldPages]!;
  assert(
    used >= 0 && held >= 0 && held <= waste && used + waste <= size,
    () => `of ${size} pages ${used} are noted as used, ${waste} as waste, ${held} as held`,
  );
}

/**
 * Lock held. O(1), for each allocation under PGALLOC_ASSERT.
 * @throws {InvariantError} unless [start, end) is a whole run of `tag` with room for `pages`
 */
export function expectGap(
  set: SegmentSet,
  start: number,
  end: number,
  tag: number,
  pages: number,
): void {
  const run = set.segmentAt(start);
  assert(
    run.start === start && run.end === end && end - start >= pages && run.tag === tag,
    () =>
      `a gap [${start}, ${end}) of tag ${tag} for ${pages} pages, but [${run.start}, ${run.end}) ` +
      `has tag ${run.tag}`,
  );
}

/**
 * Lock held. O(1). Freeing another owner's pages would hand out memory twice.
 * @throws {InvariantError} unless the thread of `slot` is releasing [start, end)
 */
export function expectReleasing(set: SegmentSet, slot: number, start: number, end: number): void {
  const run = set.segmentAt(start);
  assert(
    stateOf(run.tag) === RELEASING && run.refs === slot + 1 && run.end >= end,
    () =>
      `slot ${slot} frees pages [${start}, ${end}), but [${run.start}, ${run.end}) has tag ` +
      `${run.tag}, refs ${run.refs}`,
  );
}

/**
 * Compares all tables: O(capacity). Precondition: the lock is held, or no other thread uses the
 * file.
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
