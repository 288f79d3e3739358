/**
 * Counting for threads that died between setting pages' bits and counting them, and the cases in
 * which it must not happen.
 */
import { expect, test } from "bun:test";
import { PAGE_SIZE } from "../../src/index.ts";
import { LoadWord, PAGES_PER_UNIT, WORDS_PER_UNIT } from "../../src/load/load-tables.ts";
import { SLOT_WORDS } from "../../src/load/load-tables.ts";
import { Word } from "../../src/control/control.ts";
import { correctCounts, recoverDeadClaims } from "../../src/load/dead-threads.ts";
import { setInterleavingHook } from "../../src/control/interleave.ts";
import { heldLoad } from "../threads/support/held-load.ts";

/**
 * Sets the bit of every page but those that this thread has claimed of one unit, as if a thread had
 * died before it counted any.
 */
async function heldUncounted() {
  const held = await heldLoad();
  const { state, control, page } = held;
  const loaded = state.tables.loaded;
  const firstWord = page.start / PAGE_SIZE / 32;
  loaded.forEach((_, word) => {
    if (word < firstWord || word >= firstWord + WORDS_PER_UNIT) loaded[word] = -1;
  });
  const counts = () => ({
    pending: state.words[LoadWord.PendingPages],
    missing: state.words[LoadWord.MissingPages],
    loading: control.words[Word.Loading],
  });
  return { ...held, loaded, firstWord, counts };
}

test("correctCounts counts for a dead thread once no claim is left", async () => {
  const { state, control, loaded, firstWord, counts, letGo, end } = await heldUncounted();
  const before = counts();
  expect(before.loading).toBe(1);
  loaded.fill(-1);
  // This thread, which has a claim, may be about to count.
  correctCounts(state, control);
  expect(counts()).toEqual(before);
  letGo();
  loaded[firstWord] = ~1;
  correctCounts(state, control);
  expect(counts()).toEqual({ pending: 1, missing: 1, loading: 1 });
  loaded[firstWord] = -1;
  correctCounts(state, control);
  expect(counts()).toEqual({ pending: 0, missing: 0, loading: 0 });
  end();
});

test("correctCounts does not count pages that are tried again meanwhile", async () => {
  const { state, control, page, counts, letGo, fail, end } = await heldUncounted();
  const before = counts();
  letGo();
  fail(PAGES_PER_UNIT);
  const first = page.start / PAGE_SIZE;
  let looks = 0;
  setInterleavingHook((point) => {
    if (point !== "counts: looked at the bits") return;
    looks++;
    expect(state.retry(first, first + PAGES_PER_UNIT)).toBe(PAGES_PER_UNIT);
  });
  correctCounts(state, control);
  setInterleavingHook(undefined);
  expect(looks).toBe(1);
  expect(counts()).toEqual(before);
  expect(state.isLoaded(first, first + 1)).toBe(false);
  end();
});

/** Ends this thread at a point, from the view of the load's state. */
function endAt(at: string, action: () => void): void {
  setInterleavingHook((point) => {
    if (point === at) throw new Error("The thread ends here");
  });
  expect(action).toThrow("ends here");
  setInterleavingHook(undefined);
}

test("failed pages stay failed if a thread dies while it tries them again", async () => {
  for (const action of ["retry", "cancel"] as const) {
    const { state, control, page, letGo, slots, fail, end } = await heldUncounted();
    fail(3);
    letGo();
    const first = page.start / PAGE_SIZE;
    endAt("failed: taken", () => {
      if (action === "retry") state.retry(first, first + 3);
      else state.cancel(control, first, first + 3);
    });
    // The claims of this thread are now a dead one's.
    for (let at = 0; at < slots.length; at += SLOT_WORDS) if (slots[at + 1]! < 0) slots[at] = 1;
    expect(state.failedPage(first, first + 3)).toBe(-1);
    recoverDeadClaims(state);
    expect(state.failedPage(first, first + 3)).toBe(first);
    correctCounts(state, control);
    expect(state.words[LoadWord.FailedPages]).toBe(3);
    expect(state.words[LoadWord.PendingPages]).toBe(0);
    expect(state.retry(first, first + 3)).toBe(3);
    end();
  }
});

test("a dead thread's failed pages stay with the thread that tries them again", async () => {
  const { state, page, slots, slot, fail, end } = await heldUncounted();
  Object.assign(state, {
    tally() {
      throw new Error("The thread ends here");
    },
  });
  expect(() => fail(1)).toThrow("ends here");
  Reflect.deleteProperty(state, "tally");
  const first = page.start / PAGE_SIZE;
  const firstPage = () =>
    Int32Array.from({ length: WORDS_PER_UNIT }, (_, word) => (word === 0 ? 1 : 0));
  expect(state.retry(first, first + 1)).toBe(1);
  const unit = first / PAGES_PER_UNIT;
  const [second, third] = [state.takeSlot(), state.takeSlot()];
  expect(state.claim(second, unit, firstPage())).toBe(1);
  // No thread of this process.
  slots[slot * SLOT_WORDS] = 1;
  recoverDeadClaims(state);
  expect(state.claim(third, unit, firstPage())).toBe(0);
  // The file is unmapped once no thread reads into it.
  state.unclaim(second, unit, new Int32Array(WORDS_PER_UNIT));
  state.freeSlot(second);
  state.freeSlot(third);
  end();
});

test("a waiter for all pages is woken at the end and by a failure, not by each unit", async () => {
  for (const badCount of [0, 1]) {
    const { file, control, finish, publish, fail, end } = await heldLoad();
    const outcome = file.awaitLoad().catch((error: unknown) => error);
    const woken = () => control.words[Word.LoadProgress]!;
    const before = woken();
    if (badCount === 0) {
      finish();
      expect(woken()).toBe(before);
      publish();
      expect(await outcome).toBeUndefined();
    } else {
      fail(badCount);
      expect(await outcome).toMatchObject({ code: "EIO" });
      expect(file.isLoading).toBe(true);
    }
    end();
  }
});
