/**
 * Repairs the allocator's state after a thread died with the lock, and takes back pages that dead
 * threads were releasing.
 *
 * A thread can die between any two stores of an operation. The stores are ordered: the lowest level
 * of bits (where runs start) and the values at their starts always describe a state in which each
 * page has its old or its new value. Everything else (lengths, upper bits, maxima, page counts)
 * follows from those, and is derived again here.
 *
 * So the dead thread's operation is done, undone, or done for a part of its range, and no thread
 * was told of it. Pages that it had allocated stay used until another thread drops their
 * references.
 */
import { rebuildTables } from "../segment/rebuild.ts";
import type { SegmentSet } from "../segment/segment-set.ts";
import { MAX_PARTICIPANTS, ParticipantWord, Word } from "../control/control.ts";
import { slotWord } from "../control/participants.ts";
import { isThreadAlive } from "../threads/thread.ts";
import { HELD, HUGE, RELEASING, SUB_RELEASED, stateOf, USED, WASTE } from "./states.ts";

/** Lock held. @throws {Error} if no operation can have left the tables in this state */
export function recoverTables(set: SegmentSet, words: Int32Array): void {
  rebuildTables(set);
  countPages(set, words);
  returnDeadReleases(set, words);
}

function countPages(set: SegmentSet, words: Int32Array): void {
  let used = 0;
  let held = 0;
  let waste = 0;
  for (let run = 0; run < set.size; run = set.endOf(run)) {
    const state = stateOf(set.tagAt(run));
    const pages = set.lengthAt(run);
    if (state === USED) used += pages;
    if (state === HELD) held += pages;
    if (state === WASTE || state === HELD || state === RELEASING) waste += pages;
  }
  words[Word.UsedPages] = used;
  words[Word.HeldPages] = held;
  words[Word.WastePages] = waste;
}

/**
 * Lock held. Makes pages waste again that dead threads were decommitting. True if there were any.
 */
export function returnDeadReleases(set: SegmentSet, words: Int32Array): boolean {
  let returned = false;
  for (let slot = 0; slot < MAX_PARTICIPANTS; slot++) {
    const at = slotWord(slot);
    const end = words[at + ParticipantWord.ReleaseEnd]!;
    if (end === 0) continue;
    const owner = Atomics.load(words, at + ParticipantWord.Thread);
    if (owner !== 0 && isThreadAlive(owner)) continue;
    returnRelease(set, words, slot);
    words[at + ParticipantWord.ReleaseEnd] = 0;
    returned = true;
  }
  return returned;
}

/**
 * Makes pages waste again that the slot records as releasing. For a huge release that includes its
 * sub-released pages: it is not known whether the huge pages that they completed were made free,
 * and a second release decides it.
 */
function returnRelease(set: SegmentSet, words: Int32Array, slot: number): void {
  const at = slotWord(slot);
  const end = words[at + ParticipantWord.ReleaseEnd]!;
  const isHuge = words[at + ParticipantWord.ReleasesHuge] === 1;
  let from = words[at + ParticipantWord.ReleaseStart]!;
  while (from < end) {
    const run = set.startOf(from);
    const to = Math.min(set.endOf(run), end);
    const tag = set.tagAt(run);
    const state = stateOf(tag);
    if (state === RELEASING && set.refsAt(run) === slot + 1) {
      set.replace(from, to, WASTE | (tag & HUGE), 0, 0);
    } else if (state === SUB_RELEASED && isHuge) {
      set.replace(from, to, WASTE | HUGE, 0, 0);
      words[Word.WastePages]! += to - from;
    }
    from = to;
  }
}
