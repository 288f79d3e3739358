/**
 * The journal: before an operation changes a word it notes what the word held. An operation that
 * fails puts all of that back, so that it leaves no trace; and since the journal is in the store's
 * memory, the next writer can put back what a thread had half done when it died. Words that nothing
 * refers to yet (a fresh block's contents) need no note.
 *
 * Source of the idea: undo logging (Gray and Reuter, "Transaction Processing", 10.3), kept to one
 * operation.
 */
import { CorruptStoreError } from "../errors/store.ts";
import { JOURNAL_AT, JOURNAL_MAX, JOURNAL_WORDS, Root } from "./layout.ts";

/** Notes that word `word` of window `window` holds `value`. */
export const note = (root: Int32Array, window: number, word: number, value: number): void => {
  const count = root[Root.JournalCount]!;
  if (count < 0 || count >= JOURNAL_MAX) {
    throw new CorruptStoreError(`An operation would change more than ${JOURNAL_MAX} words`);
  }
  const at = JOURNAL_AT + JOURNAL_WORDS * count;
  root[at] = window;
  root[at + 1] = word;
  root[at + 2] = value;
  // Last: a thread can die here, and an entry counts only when it is complete.
  root[Root.JournalCount] = count + 1;
};

/** Puts back what all noted words of these windows held, newest first. The journal stays. */
export function putBack(root: Int32Array, windows: readonly (Int32Array | undefined)[]): void {
  const count = Math.max(0, Math.min(JOURNAL_MAX, root[Root.JournalCount]!));
  for (let i = count - 1; i >= 0; i--) {
    const at = JOURNAL_AT + JOURNAL_WORDS * i;
    const words = windows[root[at]!];
    const word = root[at + 1]!;
    // A window that the operation had made is not there any more, and needs nothing.
    if (words !== undefined && word >= 0 && word < words.length) words[word] = root[at + 2]!;
  }
}
