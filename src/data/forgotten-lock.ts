/**
 * The locks of stores that the program forgot: collected without `close()`. Their memory is found
 * by file/forgotten.ts. Without the lock, too, the directory can be opened for writing again.
 *
 * A store that is shared keeps its lock, because other threads may write to it.
 */
import type { KeptLock } from "../checkpoint/directory-lock.ts";
import type { StoreControl } from "./control.ts";

interface WatchedLock {
  readonly lock: KeptLock;
  readonly control: StoreControl;
}

const registry = new FinalizationRegistry<WatchedLock>(({ lock, control }) => {
  if (!control.isShared) lock.close();
});

/** `watched` refers to nothing that refers to the store. */
export function watchLock(store: object, watched: WatchedLock): void {
  registry.register(store, watched, store);
}

/** The store closes the lock itself. */
export function forgetLock(store: object): void {
  registry.unregister(store);
}
