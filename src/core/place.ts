/**
 * Finds pages for an allocation, and frees memory if the limit or the address space is used up.
 *
 * An allocation fails only if no thread can provide the memory. First it tries these steps in
 * order, and allocates again after each step that freed something:
 *
 * 1. release all waste of this thread, and pages that a dead thread was releasing;
 * 2. wait for waste that other threads are releasing, or that a load still writes to;
 * 3. ask this thread's users for their evictable memory;
 * 4. ask the users in other threads, and wait for them.
 *
 * Waiting blocks the thread. A release takes milliseconds. Another thread may be blocked and never
 * evict, so that wait has a limit.
 */
import { OutOfMemoryError } from "../errors/errors.ts";
import { Placement } from "../allocator/backing.ts";
import { Word } from "../control/control.ts";
import { PAGE_SIZE } from "../pages/units.ts";
import type { FileCore } from "./core.ts";

/**
 * A releasing thread ends within milliseconds. This limit is for a thread that gets no processor.
 */
const RELEASE_WAIT_MS = 2000;
const EVICTION_WAIT_MS = 1000;
/** How long a waiter sleeps before it checks that the releasing threads still live. */
const LOOK_MS = 20;

/**
 * Returns the first page; see Allocator.allocate. If there is much waste, some of it is released
 * before the file grows.
 *
 * @throws {OutOfMemoryError}
 */
export function placePages(
  core: FileCore,
  pages: number,
  tag: number,
  group: number,
  how: number,
): number {
  const { allocator, releaser, evictions } = core;
  evictions.noteAllocation(pages);
  try {
    if (!releaser.isBehind) return allocator.allocate(pages, tag, group, how | Placement.Grow);
    const start = allocator.allocate(pages, tag, group, how);
    if (start >= 0) return start;
    releaser.assist(pages);
    return allocator.allocate(pages, tag, group, how | Placement.Grow);
  } catch (error) {
    if (!(error instanceof OutOfMemoryError) || pages * PAGE_SIZE > error.limitBytes) throw error;
    return placeInFreed(core, error, { pages, tag, group, how: how | Placement.Grow });
  }
}

/**
 * The arguments of `Allocator.allocate`. An object, because each allocation would make a closure.
 */
interface Wanted {
  readonly pages: number;
  readonly tag: number;
  readonly group: number;
  readonly how: number;
}

/** Frees memory until there is room. @throws {OutOfMemoryError} once nothing more can be freed */
function placeInFreed(core: FileCore, error: OutOfMemoryError, wanted: Wanted): number {
  const { evictions } = core;
  const sources = [
    () => true,
    () => evictions.evictNow(),
    () => evictions.evictElsewhere(EVICTION_WAIT_MS),
  ];
  for (const hasWaste of sources) {
    if (!hasWaste()) continue;
    // A user's code may have destroyed the file.
    core.requireLive("allocate()");
    const start = placeInWaste(core, wanted);
    if (start >= 0) return start;
  }
  throw error;
}

/**
 * Allocates once the waste is released, by this thread or others. Returns -1 if that is too little.
 */
function placeInWaste({ releaser, words, allocator }: FileCore, wanted: Wanted): number {
  for (const until = performance.now() + RELEASE_WAIT_MS; ; ) {
    const seen = Atomics.load(words, Word.Releases);
    releaser.releaseAll();
    try {
      return allocator.allocate(wanted.pages, wanted.tag, wanted.group, wanted.how);
    } catch (error) {
      if (!(error instanceof OutOfMemoryError)) throw error;
    }
    if (Atomics.load(words, Word.WastePages) === 0 || performance.now() > until) return -1;
    Atomics.add(words, Word.ReleaseWaiters, 1);
    Atomics.wait(words, Word.Releases, seen, LOOK_MS);
    Atomics.sub(words, Word.ReleaseWaiters, 1);
  }
}
