/** The end of a file's memory: unmaps everything once no thread has views of it. */
import { Commitment } from "../accounting/commitment.ts";
import { Changes } from "../changes/changes.ts";
import { type Control, Word } from "../control/control.ts";
import { takeUnmapping } from "../control/participants.ts";
import { Loader } from "../load/loader.ts";
import { PAGE_SIZE } from "../pages/units.ts";
import type { MemoryFileHandle } from "./options.ts";
import { attachMemory, controlOf, type Parts } from "./parts.ts";

/** Precondition: no thread has views of the memory or the tables, and this one may unmap them. */
export function unmapMemory(
  control: Control,
  { mapping, tables }: Pick<Parts, "mapping" | "tables">,
): void {
  const sizePages = control.words[Word.SizePages]!;
  tables.unmap();
  new Commitment(control).unmap();
  new Changes(control, { fd: mapping.fd, base: mapping.base, sizePages: () => sizePages }).close();
  mapping.destroy(control.words[Word.Escaped] === 0 ? 0 : sizePages * PAGE_SIZE);
}

/**
 * Unmaps a destroyed file if all its threads have left or ended. Returns true once it is unmapped,
 * by this thread or another.
 */
export function unmapAbandoned(handle: MemoryFileHandle): boolean {
  const control = controlOf(handle);
  const result = takeUnmapping(control.words);
  if (result === "own") {
    const memory = attachMemory(control);
    // No thread is left to load, so the load's open files are closed here.
    if (handle.load !== null)
      Loader.attach(handle.load, handle.control, memory.mapping.base).close();
    unmapMemory(control, memory);
  }
  return result !== "in use";
}
