/** Rebuilds an empty file's allocation state from a validated checkpoint. */
import type { Allocator } from "../allocator/allocator.ts";
import { OutOfMemoryError } from "../errors.ts";
import { type Control, Field } from "../shared/control.ts";
import { PAGE_SIZE, PAGES_PER_CHUNK } from "../units.ts";
import type { CheckpointImage } from "./format.ts";

/** What a restore needs to know of a file; a CheckpointImage is one. Validated by whoever made it. */
export type RestoreImage = Pick<CheckpointImage, "chunkHuge" | "runs" | "extents">;

/** @throws {OutOfMemoryError} if the checkpoint asks for more than the file may hold; nothing has changed then */
export function restoreRuns(allocator: Allocator, control: Control, image: RestoreImage): void {
  const { chunkHuge, runs } = image;
  const limitPages = control.fields[Field.LimitPages]!;
  const usedPages = runs.length.reduce((sum, pages, i) => sum + (runs.refs[i]! > 0 ? pages : 0), 0);
  const sizePages = chunkHuge.length * PAGES_PER_CHUNK;
  if (usedPages > limitPages || sizePages > control.fields[Field.CapacityPages]!) {
    throw new OutOfMemoryError(Math.max(usedPages, sizePages) * PAGE_SIZE, limitPages * PAGE_SIZE, 0);
  }
  allocator.lock();
  try {
    for (let chunk = 0; chunk < chunkHuge.length; ) {
      let end = chunk + 1;
      while (end < chunkHuge.length && chunkHuge[end] === chunkHuge[chunk]) end++;
      allocator.addChunks(end - chunk, chunkHuge[chunk] === 1);
      chunk = end;
    }
    for (let i = 0; i < runs.start.length; i++) {
      const start = runs.start[i]!;
      const end = start + runs.length[i]!;
      allocator.restoreRun(start, end, runs.state[i]!, runs.refs[i]!, runs.kind[i]!, runs.group[i]!);
    }
  } finally {
    allocator.unlock();
  }
}
