/** Reads beside a writer in another thread: see control.ts. */
import type { Arena } from "./arena.ts";

/** How often a writer may spoil a read before the reader takes the lock. */
const MAX_TRIES = 64;
const PAUSE_AFTER = 4;

/**
 * Returns or throws what `read` does in a run during which no writer changed what the stripe
 * covers. `read` may run several times, and may see anything while a writer is at work.
 */
export function readRaced<T>(arena: Arena, stripe: number, read: () => T): T {
  const { control } = arena;
  for (let tries = 0; tries < MAX_TRIES; tries++) {
    if (tries >= PAUSE_AFTER) Atomics.pause();
    const count = control.countOf(stripe);
    if ((count & 1) !== 0) continue;
    // A writer may have added the window that the stripe's structure is in now.
    arena.refresh();
    try {
      const value = read();
      if (control.countOf(stripe) === count) return value;
    } catch (error) {
      if (control.countOf(stripe) === count) throw error;
    }
  }
  return arena.readLocked(read);
}
