/**
 * Populates mapped pages: here if they are in the page cache, else in a thread (worker/tasks.ts:
 * "load.populate"), so that the program's thread does not wait for the disk.
 */
import { type Control, openControl, Word } from "../control/control.ts";
import { freeSlot, takeSlot } from "../control/participants.ts";
import { Overlay, type OverlaidMemory } from "../memory/overlay.ts";
import { HUGE_PAGE_SIZE, PAGE_SIZE } from "../pages/units.ts";
import { runInThread } from "../threads/pool.ts";
import { isResident, populate } from "./populate.ts";
import { willNeed } from "./read-ahead.ts";

/** Pages of one advice. */
const STEP_PAGES = HUGE_PAGE_SIZE / PAGE_SIZE;
/** At most 0.1 ms of work. Starting a thread takes ten times as long. */
const OWN_PAGES_MAX = STEP_PAGES;

interface PageBounds {
  readonly start: number;
  readonly end: number;
}

interface PopulateTask extends OverlaidMemory {
  readonly control: SharedArrayBuffer;
  readonly overlay: SharedArrayBuffer;
  readonly start: number;
  readonly end: number;
}

/**
 * Resolves when mapped pages [start, end) are present. The kernel may reclaim them at any time.
 *
 * @throws {SyscallError} if a page cannot be read
 */
export async function populateInThread(
  control: Control,
  { fd, base }: OverlaidMemory,
  overlay: SharedArrayBuffer,
  { start, end }: PageBounds,
): Promise<void> {
  const task: PopulateTask = { control: control.buffer, fd, base, overlay, start, end };
  await runInThread("load.populate", task).done;
}

/**
 * As `populateInThread`, in this thread. Returns false, with nothing done, if that may take long:
 * the pages are many, or some are only on the disk. @throws {SyscallError} if a page cannot be read
 */
export function populateHere(overlay: Overlay, { start, end }: PageBounds): boolean {
  if (end - start > OWN_PAGES_MAX) return false;
  let isHere = true;
  forEachMapped(overlay, start, end, (address, lengthBytes) => {
    isHere = isResident(address, lengthBytes);
    return isHere;
  });
  if (isHere) forEachMapped(overlay, start, end, populateStep);
  return isHere;
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
    forEachMapped(overlay, start, end, (address, lengthBytes) => {
      if (Atomics.load(control.words, Word.Destroyed) !== 0) return false;
      willNeed(address, lengthBytes);
      return populateStep(address, lengthBytes);
    });
  } finally {
    freeSlot(control.words, slot);
  }
}

/** @throws {SyscallError} */
function populateStep(address: number, lengthBytes: number): true {
  const error = populate(address, lengthBytes);
  if (error !== null) throw error;
  return true;
}

/** Visits mapped pages of [start, end) in steps, while `visit` returns true. */
function forEachMapped(
  overlay: Overlay,
  start: number,
  end: number,
  visit: (address: number, lengthBytes: number) => boolean,
): void {
  for (let page = overlay.next(start, end, true); page < end; ) {
    const stop = Math.min(overlay.next(page, end, false), page + STEP_PAGES);
    if (!visit(overlay.base + page * PAGE_SIZE, (stop - page) * PAGE_SIZE)) return;
    page = overlay.next(stop, end, true);
  }
}
