/** What is counted for threads that died between setting pages' bits and counting them, and when it must not be. */
import { expect, test } from "bun:test";
import { PAGE_SIZE } from "../../src/index.ts";
import { LoadWord, PAGES_PER_UNIT, WORDS_PER_UNIT } from "../../src/load/load-state.ts";
import { SLOT_WORDS } from "../../src/load/load-tables.ts";
import { Word } from "../../src/control/control.ts";
import { heldLoad } from "../threads/support/held-load.ts";

/** Every page but those that this thread has claimed of one unit has its bit, as if a thread had died before it counted any. */
async function heldUncounted() {
  const held = await heldLoad();
  const { state, control, page } = held;
  const loaded = Reflect.get(state, "loaded") as Int32Array;
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

test("what a dead thread did not count is counted when every page has a bit and nobody a claim, and not before", async () => {
  const { state, control, loaded, firstWord, counts, letGo, end } = await heldUncounted();
  const before = counts();
  expect(before.loading).toBe(1);
  loaded.fill(-1);
  // This thread, which has a claim, may be about to count.
  state.endIfAllRead(control);
  expect(counts()).toEqual(before);
  letGo();
  loaded[firstWord] = ~1;
  state.endIfAllRead(control);
  expect(counts()).toEqual(before);
  loaded[firstWord] = -1;
  state.endIfAllRead(control);
  expect(counts()).toEqual({ pending: 0, missing: 0, loading: 0 });
  end();
});

test("pages that fail and are tried again while somebody looks whether every page has a bit are not taken for loaded", async () => {
  const { state, control, page, counts, letGo, fail, end } = await heldUncounted();
  const before = counts();
  letGo();
  const first = page.start / PAGE_SIZE;
  const { everyBit } = state as unknown as { everyBit: (...args: unknown[]) => boolean };
  let looks = 0;
  Object.assign(state, {
    everyBit(...args: unknown[]) {
      fail(PAGES_PER_UNIT);
      return everyBit.apply(state, args);
    },
    hasClaims() {
      // The second look comes after the bits. As many are pending then as at the beginning.
      if (++looks === 2) expect(state.retry(first, first + PAGES_PER_UNIT)).toBe(PAGES_PER_UNIT);
      return false;
    },
  });
  state.endIfAllRead(control);
  expect(looks).toBe(2);
  expect(counts()).toEqual(before);
  expect(state.isLoaded(first, first + 1)).toBe(false);
  end();
});

test("pages that a thread failed to read before it died are not taken back from whoever tries them again", async () => {
  const { state, page, slots, slot, fail, end } = await heldUncounted();
  Object.assign(state, {
    settle() {
      throw new Error("The thread ends here");
    },
  });
  expect(() => fail(1)).toThrow("ends here");
  Reflect.deleteProperty(state, "settle");
  const first = page.start / PAGE_SIZE;
  const firstPage = () =>
    Int32Array.from({ length: WORDS_PER_UNIT }, (_, word) => (word === 0 ? 1 : 0));
  expect(state.retry(first, first + 1)).toBe(1);
  expect(state.claim(state.takeSlot(), first / PAGES_PER_UNIT, firstPage())).toBe(1);
  // No thread of this process.
  slots[slot * SLOT_WORDS] = 1;
  state.recoverDeadClaims();
  expect(state.claim(state.takeSlot(), first / PAGES_PER_UNIT, firstPage())).toBe(0);
  end();
});

test("who awaits all of the file is woken when it is loaded, and by a failure at once, but not by each unit", async () => {
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
