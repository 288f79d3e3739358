/**
 * The order in which the background pass takes units: by address, each once. Pages that a program
 * waits for come before all of them (demand.ts), then the recorded working set of an earlier start
 * (first-pages.ts).
 *
 * The position is a shared word, so that all threads of a load follow one order. Only this file
 * changes it.
 */
import { LoadWord } from "./load-tables.ts";

/** The next unit of the pass, or -1 at its end. `words` are LoadWord's. */
export function takeUnit(words: Int32Array, unitCount: number): number {
  const unit = Atomics.add(words, LoadWord.NextUnit, 1);
  return unit < unitCount ? unit : -1;
}

/**
 * Begins the pass again. Threads that died or stopped may have taken units without claiming their
 * pages. Loaded and claimed pages are skipped quickly.
 */
export function restartOrder(words: Int32Array): void {
  Atomics.store(words, LoadWord.NextUnit, 0);
}
