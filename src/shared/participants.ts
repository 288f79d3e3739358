/**
 * Which threads use a file, and who unmaps it: the last one to leave after it was destroyed.
 *
 * Each MemoryFile object has a slot with its thread's kernel id. `destroy` sets Word.Destroyed to 1 and wakes the others;
 * each leaves at its next call or turn: detaches its views, then clears its slot. Whoever then sees no slot of a living
 * thread moves Destroyed from 1 to 2, once, and unmaps. A thread that died has left; one that never answers keeps the
 * memory mapped, which is reported.
 */
import { type Control, MAX_PARTICIPANTS, Word } from "./control.ts";
import { isThreadAlive, THREAD_ID } from "./thread.ts";

const POLL_MS = 20;
const WARN_AFTER_MS = 5000;

export class Participants {
  private readonly words: Int32Array<SharedArrayBuffer>;
  private readonly slot: number;

  /** Takes a slot. `onDestroyed` is called, in a turn of this thread's, when another one has destroyed the file. */
  constructor(control: Control, onDestroyed: () => void) {
    this.words = control.words;
    this.slot = this.takeSlot();
    const wait = Atomics.waitAsync(this.words, Word.Destroyed, 0);
    if (wait.async) void wait.value.then(onDestroyed);
  }

  private takeSlot(): number {
    for (let slot = Word.Participants; slot < Word.Participants + MAX_PARTICIPANTS; slot++) {
      const owner = Atomics.load(this.words, slot);
      if (owner !== 0 && isThreadAlive(owner)) continue;
      if (Atomics.compareExchange(this.words, slot, owner, THREAD_ID) === owner) return slot;
    }
    throw new RangeError(`Cannot attach: ${MAX_PARTICIPANTS} threads use the file already`);
  }

  /** Marks the file destroyed, and tells the others. */
  destroy(): void {
    if (Atomics.compareExchange(this.words, Word.Destroyed, 0, 1) === 0) Atomics.notify(this.words, Word.Destroyed);
  }

  /** This object uses the memory no more. Calls `unmap` now, or later if another thread still has to leave. */
  leave(unmap: () => void): void {
    Atomics.store(this.words, this.slot, 0);
    if (!this.unmapIfEmpty(unmap)) this.poll(unmap, performance.now(), false);
  }

  private poll(unmap: () => void, since: number, warned: boolean): void {
    const late = !warned && performance.now() - since > WARN_AFTER_MS;
    if (late)
      process.emitWarning("A thread still uses a destroyed MemoryFile; its memory stays mapped until the thread leaves");
    setTimeout(() => {
      if (!this.unmapIfEmpty(unmap)) this.poll(unmap, since, warned || late);
    }, POLL_MS).unref();
  }

  /** True if the memory is gone, by us or by another thread. */
  private unmapIfEmpty(unmap: () => void): boolean {
    for (let slot = Word.Participants; slot < Word.Participants + MAX_PARTICIPANTS; slot++) {
      const owner = Atomics.load(this.words, slot);
      if (owner !== 0 && isThreadAlive(owner)) return false;
    }
    if (Atomics.compareExchange(this.words, Word.Destroyed, 1, 2) === 1) unmap();
    return true;
  }
}
