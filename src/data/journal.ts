/**
 * The journal: an operation notes what a word holds before it changes the word. An operation that
 * fails puts all of that back. The journal is in the store's memory, so the next writer can also
 * undo what a thread had half done when it died. A word that nothing refers to yet (a fresh block's
 * contents) needs no note.
 *
 * This is undo logging (Gray and Reuter, "Transaction Processing", 10.3), limited to one operation.
 *
 *   a word      window · word · what it held
 *   a copy      window · word · words     of the block that holds the old contents, then
 *               ~window · word · 0        of the words that they are from
 */
import { CorruptStoreError } from "../errors/store.ts";
import { JOURNAL_AT, JOURNAL_MAX, JOURNAL_WORDS, Root } from "./layout.ts";

/** Notes that word `word` of window `window` holds `value`. */
export const note = (root: Int32Array, window: number, word: number, value: number): void => {
  const count = root[Root.JournalCount]!;
  if (count < 0 || count >= JOURNAL_MAX) throwFull();
  const at = JOURNAL_AT + JOURNAL_WORDS * count;
  root[at] = window;
  root[at + 1] = word;
  root[at + 2] = value;
  // Last: a thread may die here, and only a counted entry is complete.
  root[Root.JournalCount] = count + 1;
};

/** Notes that what `count` words held is in a block. The block's contents stay until the commit. */
export function noteCopy(
  root: Int32Array,
  { window, word, count }: { window: number; word: number; count: number },
  copy: { window: number; word: number },
): void {
  const entries = root[Root.JournalCount]!;
  if (entries < 0 || entries > JOURNAL_MAX - 2) throwFull();
  root.set([copy.window, copy.word, count, ~window, word, 0], JOURNAL_AT + JOURNAL_WORDS * entries);
  root[Root.JournalCount] = entries + 2;
}

function throwFull(): never {
  throw new CorruptStoreError(`An operation would change more than ${JOURNAL_MAX} words`);
}

/** Puts back all that is in copies, newest first. The journal stays. */
export function putBackCopies(
  root: Int32Array,
  wordsOf: (window: number) => Int32Array | undefined,
): void {
  const count = Math.max(0, Math.min(JOURNAL_MAX, root[Root.JournalCount]!));
  for (let i = count - 1; i > 0; i--) {
    const at = JOURNAL_AT + JOURNAL_WORDS * i;
    if (root[at]! >= 0) continue;
    i--;
    const words = wordsOf(~root[at]!);
    const from = root[at - 2]!;
    // A window that the operation made is gone: nothing to put back.
    words?.set(wordsOf(root[at - 3]!)!.subarray(from, from + root[at - 1]!), root[at + 1]!);
  }
}

/** Puts back what all noted words of these windows held, newest first. The journal stays. */
export function putBack(root: Int32Array, windows: readonly (Int32Array | undefined)[]): void {
  const count = Math.max(0, Math.min(JOURNAL_MAX, root[Root.JournalCount]!));
  for (let i = count - 1; i >= 0; i--) {
    const at = JOURNAL_AT + JOURNAL_WORDS * i;
    if (root[at]! < 0) {
      // A copy, of two entries.
      i--;
      continue;
    }
    const words = windows[root[at]!];
    const word = root[at + 1]!;
    // A window that the operation made is gone: nothing to put back.
    if (words !== undefined && word >= 0 && word < words.length) words[word] = root[at + 2]!;
  }
}
