/**
 * The remains of dead threads in a load, and their repair. A thread may end between any two steps,
 * at a loop's back edge or a call. It may leave:
 *
 * - A claim: pages started by no living thread. They become free again, and wanted.
 * - A read in flight in its io_uring ring, which the kernel continues. The claim stays until the
 *   ring is drained and closed (ring-table.ts).
 * - A claim of failed pages that it was about to forget or to try again. They fail again.
 * - Counts that do not agree with the bits. While no thread has a claim, they are counted again.
 * - The mark of the demand thread. It is cleared.
 *
 * A waiting thread takes over the run itself (loader.ts).
 */
import { bitCount } from "../pages/bits.ts";
import type { Control } from "../control/control.ts";
import { reach } from "../control/interleave.ts";
import { isThreadAlive, THREAD_ID } from "../threads/thread.ts";
import type { DemandBoard } from "./demand.ts";
import { GroupWord, type LoadGroup } from "./group.ts";
import {
  type LoadTables,
  LoadWord,
  PAGES_PER_UNIT,
  SLOT_WORDS,
  SLOTS,
  WORDS_PER_UNIT,
} from "./load-tables.ts";

/** The part of a LoadState that is used here. */
export interface Recoverable {
  readonly tables: LoadTables;
  readonly group: LoadGroup;
  readonly demands: DemandBoard;
  countArrived(control: Control, pages: number): void;
  end(control: Control): void;
}

/** True while a claimed page may still change: by its thread, or by the kernel for a dead one. */
export function hasClaims(state: Recoverable): boolean {
  const { slots } = state.tables;
  for (let slot = 0; slot < SLOTS; slot++) {
    const at = slot * SLOT_WORDS;
    const thread = Atomics.load(slots, at);
    if (thread !== 0 && Atomics.load(slots, at + 1) !== 0 && mayWrite(state, thread)) return true;
  }
  return false;
}

/** False once neither the thread nor a read of its own can change memory. Closes dead rings. */
function mayWrite(state: Recoverable, thread: number): boolean {
  return isThreadAlive(thread) || !state.group.rings.closeOf(thread);
}

/** Returns the claims of dead threads without a read in flight, and asks for their pages again. */
export function recoverDeadClaims(state: Recoverable): void {
  const { slots } = state.tables;
  clearDeadServer(state);
  for (let slot = 0; slot < SLOTS; slot++) {
    const at = slot * SLOT_WORDS;
    const thread = Atomics.load(slots, at);
    if (thread === 0 || mayWrite(state, thread)) continue;
    if (Atomics.compareExchange(slots, at, thread, THREAD_ID) !== thread) continue;
    // The slot is this thread's now. If this thread dies here, another one continues from there.
    reach("recover: took the slot");
    giveBack(state, at);
    Atomics.store(slots, at, 0);
  }
}

function clearDeadServer({ group }: Recoverable): void {
  const server = Atomics.load(group.words, GroupWord.DemandServed);
  if (server === 0 || isThreadAlive(server)) return;
  if (Atomics.compareExchange(group.words, GroupWord.DemandServed, server, 0) === server)
    Atomics.store(group.words, GroupWord.DemandInFlight, 0);
}

function giveBack(state: Recoverable, at: number): void {
  const { slots, started, loaded, failed, words } = state.tables;
  const owner = Atomics.load(slots, at + 1);
  if (owner === 0) return;
  const unit = Math.abs(owner) - 1;
  for (let i = 0; i < WORDS_PER_UNIT; i++) {
    const word = unit * WORDS_PER_UNIT + i;
    const decided = Atomics.load(loaded, word) | Atomics.load(failed, word);
    const lost = slots[at + 2 + i]! & ~decided;
    // A claim's pages become free. Pages taken off the failed ones fail again.
    if (owner > 0) Atomics.and(started, word, ~lost);
    else Atomics.or(failed, word, lost);
    slots[at + 2 + i] = 0;
  }
  Atomics.store(slots, at + 1, 0);
  if (owner < 0) return;
  const end = Math.min((unit + 1) * PAGES_PER_UNIT, words[LoadWord.SizePages]!);
  state.demands.demand(unit * PAGES_PER_UNIT, end);
}

/**
 * Corrects the counts that dead threads did not update, by the bits, and ends the load if no page
 * is pending. Does nothing while a thread has a claim.
 *
 * The order of steps makes this safe: a thread with a claim sets bits, counts, then drops the
 * claim. So counts agree with bits while there is no claim. Counts change by differences, and only
 * if no thread has made failed pages pending (Revision) or ended pending ones (PendingPages).
 */
export function correctCounts(state: Recoverable, control: Control): void {
  const { words, unitPending } = state.tables;
  const revision = Atomics.load(words, LoadWord.Revision);
  const pending = Atomics.load(words, LoadWord.PendingPages);
  const failed = Atomics.load(words, LoadWord.FailedPages);
  const missing = Atomics.load(words, LoadWord.MissingPages);
  if (missing === 0 || hasClaims(state)) return;
  const seen = countByBits(state);
  if (seen.pending === pending && seen.failed === failed) return;
  reach("counts: looked at the bits");
  if (hasClaims(state)) return;
  if (Atomics.compareExchange(words, LoadWord.Revision, revision, revision + 1) !== revision)
    return;
  if (Atomics.compareExchange(words, LoadWord.PendingPages, pending, seen.pending) !== pending)
    return;
  for (let unit = 0; unit < unitPending.length; unit++)
    Atomics.add(unitPending, unit, seen.byUnit[unit]! - Atomics.load(unitPending, unit));
  Atomics.add(words, LoadWord.FailedPages, seen.failed - failed);
  state.countArrived(control, missing - seen.failed - seen.pending);
  if (seen.pending === 0) state.end(control);
}

function countByBits({ tables: { loaded, failed, unitCount } }: Recoverable) {
  const byUnit = new Int32Array(unitCount);
  const counts = { pending: 0, failed: 0, byUnit };
  for (let word = 0; word < loaded.length; word++) {
    const isLoaded = Atomics.load(loaded, word);
    const hasFailed = Atomics.load(failed, word) & ~isLoaded;
    const pending = bitCount(~(isLoaded | hasFailed));
    counts.failed += bitCount(hasFailed);
    counts.pending += pending;
    byUnit[Math.floor(word / WORDS_PER_UNIT)]! += pending;
  }
  return counts;
}
