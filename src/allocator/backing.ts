/** The seams of the allocator: the memory behind it, the ways of placement, visitors. */
import type { SegmentSet } from "../segment/segment-set.ts";

/** The memory behind an allocator. Each method is called with the lock held. */
export interface Backing {
  /**
   * Maps `chunks` more chunks at the end of the file. Throws if that is not possible, with nothing
   * changed.
   */
  grow(chunks: number, huge: boolean): void;
  /**
   * Called when pages lost their last reference. Cancels loads of them that have not started. True
   * if something is still being read into them, so that they must be held.
   */
  cancelLoad(start: number, end: number): boolean;
  /** True once nothing is being read into the pages. */
  hasNoReads(start: number, end: number): boolean;
  /** The first page at or after `page` that may be committed; beyond the file if there is none. */
  nextData(page: number): number;
  /** The first page at or after `page` that was touched; beyond the file if there is none. */
  nextTouched(page: number): number;
  /** Called when pages were decommitted and are about to become free or sub-released. */
  uncommitted(start: number, end: number): void;
  /** For checks: called when pages have just lost their last reference. */
  discarded?: ((start: number, end: number) => void) | undefined;
  /** For checks: the end of a message about pages without references. */
  whereDropped?: ((start: number, end: number) => string) | undefined;
  /** Called after a thread died during a change and the runs were repaired. */
  recovered(set: SegmentSet): void;
}

/** How `allocate` places pages: a sum of these values. */
export const Placement = {
  /**
   * The last pages of the highest gap that is large enough. Without it: the first of the lowest.
   */
  TopDown: 1,
  /** The pages may be recycled waste, because they will be committed anyway. */
  Recycle: 2,
  /** When nothing fits, the file may grow. */
  Grow: 4,
} as const;

/** A callback for each run, in the form in which checkpoints store it. */
export type RunVisitor = (
  start: number,
  end: number,
  state: number,
  huge: boolean,
  refs: number,
  kind: number,
  group: number,
) => void;
