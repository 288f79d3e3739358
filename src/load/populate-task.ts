/**
 * Brings mapped pages in, in a thread (worker/tasks.ts: "load.populate"), so that the program's
 * thread does not wait for the disk when it touches them.
 */
import { type Control, openControl, Word } from "../control/control.ts";
import { freeSlot, takeSlot } from "../control/participants.ts";
import { Overlay, type OverlaidMemory } from "../memory/overlay.ts";
import { HUGE_PAGE_SIZE, PAGE_SIZE } from "../pages/units.ts";
import { runInThread } from "../threads/pool.ts";
import { populate, readAhead } from "./populate.ts";

/** Pages of one advice. */
const STEP_PAGES = HUGE_PAGE_SIZE / PAGE_SIZE;

interface PopulateTask extends OverlaidMemory {
  readonly control: SharedArrayBuffer;
  readonly overlay: SharedArrayBuffer;
  readonly start: number;
  readonly end: number;
}

/**
 * Resolves when mapped pages [start, end) are present. The kernel may reclaim them at any time.
 *
 * @throws {SyscallError} if a page cannot be had
 */
export async function populateInThread(
  control: Control,
  { fd, base }: OverlaidMemory,
  overlay: SharedArrayBuffer,
  { start, end }: { readonly start: number; readonly end: number },
): Promise<void> {
  const task: PopulateTask = { control: control.buffer, fd, base, overlay, start, end };
  await runInThread("load.populate", task).done;
}

export function run({
  control: buffer,
  fd,
  base,
  overlay: shared,
  start,
  end,
}: PopulateTask): void {
  const control = openControl(buffer);
  const slot = takeSlot(control.words);
  try {
    const overlay = new Overlay(shared, { fd, base });
    for (let page = overlay.next(start, end, true); page < end; ) {
      if (Atomics.load(control.words, Word.Destroyed) !== 0) return;
      const stop = Math.min(overlay.next(page, end, false), page + STEP_PAGES);
      const address = base + page * PAGE_SIZE;
      readAhead(address);
      const error = populate(address, (stop - page) * PAGE_SIZE);
      if (error !== null) throw error;
      page = overlay.next(stop, end, true);
    }
  } finally {
    freeSlot(control.words, slot);
  }
}
