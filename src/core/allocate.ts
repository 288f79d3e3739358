/**
 * Allocation: places pages, commits them as `mode` asks, and fills them. Arguments are checked
 * before anything changes, and a failure returns the pages.
 */
import { checkBoolean, checkFunction, checkInteger } from "../../ffi/index.ts";
import { Placement } from "../allocator/backing.ts";
import { HUGE, KIND_SHIFT, USED } from "../allocator/states.ts";
import { Word } from "../control/control.ts";
import { FileRange } from "../pages/range.ts";
import { MemoryKind, PAGE_SIZE } from "../pages/units.ts";
import type { FileCore } from "./core.ts";
import { requireOptions } from "./option-names.ts";
import {
  type AllocateOptions,
  type AllocationMode,
  checkAllocation,
  checkLength,
  isTopDown,
  type Nullable,
} from "./options.ts";
import { placePages } from "./place.ts";

type Fill = (destination: Uint8Array) => number;

/** As MemoryFile.allocate. */
export function allocatePages(
  core: FileCore,
  lengthBytes: number,
  options: Nullable<AllocateOptions>,
): FileRange {
  requireOptions(options);
  // Each is read once, before the file is checked, because a getter may destroy the file.
  const { kind, group, mode, huge: wantsHuge, direction, fill } = options;
  core.requireLive("allocate()");
  const how = mode ?? "uncommitted";
  const isHuge = wantsHuge ?? false;
  checkBoolean("huge", isHuge);
  const ownKind = kind ?? MemoryKind.Anonymous;
  const ownGroup = group ?? 0;
  checkLength(lengthBytes, isHuge);
  checkAllocation(how, ownKind, ownGroup);
  const topDown = isTopDown(direction) ? Placement.TopDown : 0;
  if (fill != null) checkFunction("fill", fill);
  const huge = isHuge && core.expectHugepages;
  const tag = USED | (huge ? HUGE : 0) | (ownKind << KIND_SHIFT);
  const recycle = how === "uncommitted" ? 0 : Placement.Recycle;
  const page = placePages(core, lengthBytes / PAGE_SIZE, tag, ownGroup, topDown | recycle);
  const start = page * PAGE_SIZE;
  const range = new FileRange(start, start + lengthBytes);
  if (how !== "uncommitted") commitPages(core, range, how, huge);
  return fill == null ? range : fillPages(core, range, fill);
}

/** Precondition: the allocator has just placed the range. Drops it again if that fails. */
function commitPages(core: FileCore, range: FileRange, mode: AllocationMode, huge: boolean): void {
  const { allocator, mapping, words, advises } = core;
  const { start, end } = range;
  const { recycled } = allocator;
  let seen = true;
  try {
    if (recycled || mode === "writePopulate" || (huge ? advises.huge : advises.small)) {
      // Through the file's mapping, because only that carries the advice about huge pages.
      seen = mapping.populate(start, end);
    } else if (mode === "commit") {
      // Allocated without a touch, so scans may not see them.
      seen = false;
      mapping.commit(start, end);
    }
    if (recycled) mapping.zero(start, end);
    if (seen) return;
    Atomics.store(words, Word.UnseenCommits, 1);
    core.noteCommitted(start / PAGE_SIZE, end / PAGE_SIZE);
  } catch (error) {
    // Some of the pages may have been allocated.
    if (!seen) Atomics.store(words, Word.UnseenCommits, 1);
    core.dropPages(start / PAGE_SIZE, end / PAGE_SIZE);
    throw error;
  }
}

/** Lets the program fill the range. Drops the pages after the last whole page that it filled. */
function fillPages(core: FileCore, range: FileRange, fill: Fill): FileRange {
  const first = range.start / PAGE_SIZE;
  const last = range.end / PAGE_SIZE;
  let filledBytes = 0;
  try {
    for (const view of core.viewsOf(first, last)) {
      const done = fillView(core, view, fill);
      filledBytes += done;
      if (done < view.byteLength) break;
    }
  } catch (error) {
    if (!core.isDetached) core.dropPages(first, last);
    throw error;
  }
  const end = first + Math.floor(filledBytes / PAGE_SIZE);
  if (end === last) return range;
  core.dropPages(end, last);
  return new FileRange(range.start, end * PAGE_SIZE);
}

/** Calls `fill` until the view is full, or `fill` has no more data. Returns the filled bytes. */
function fillView(core: FileCore, view: Uint8Array, fill: Fill): number {
  let done = 0;
  while (done < view.byteLength) {
    const count = fill(view.subarray(done));
    core.requireLive("allocate()");
    checkInteger("fill's result", count, 0, view.byteLength - done);
    if (count === 0) break;
    done += count;
  }
  return done;
}
