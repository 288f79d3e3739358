/**
 * Rebuilds an empty file's allocation state from a validated checkpoint, in one pass over sorted
 * columns.
 */
import type { Allocator } from "../allocator/allocator.ts";
import { restoreRunsInto } from "../allocator/restore-runs.ts";
import { KIND_SHIFT, USED } from "../allocator/states.ts";
import { OutOfMemoryError } from "../errors/errors.ts";
import { type Control, Field } from "../control/control.ts";
import { PAGE_SIZE, PAGES_PER_CHUNK } from "../pages/units.ts";
import type { FileImage } from "../checkpoint/format.ts";

/** The validated parts of a file that a restore needs. A FileImage has them. */
export type RestoreImage = Pick<FileImage, "chunkHuge" | "runs">;

/**
 * @throws {OutOfMemoryError} if the checkpoint needs more than the file's limit; nothing has
 * changed then
 */
export function restoreRuns(allocator: Allocator, control: Control, image: RestoreImage): void {
  const { chunkHuge, runs } = image;
  const { start, length, state, refs, kind, group } = runs;
  const tag = new Uint32Array(start.length);
  let usedPages = 0;
  for (let i = 0; i < tag.length; i++) {
    tag[i] = state[i]! | (kind[i]! << KIND_SHIFT);
    if (state[i] === USED) usedPages += length[i]!;
  }
  const limitPages = control.fields[Field.LimitPages]!;
  const sizePages = chunkHuge.length * PAGES_PER_CHUNK;
  if (usedPages > limitPages || sizePages > control.fields[Field.CapacityPages]!) {
    throw new OutOfMemoryError(
      Math.max(usedPages, sizePages) * PAGE_SIZE,
      limitPages * PAGE_SIZE,
      0,
    );
  }
  restoreRunsInto(allocator, chunkHuge, { start, length, tag, refs, group });
}
