/** What an allocator is given, and how it is asked: the memory behind it, placement, visitors. */
import type { SegmentSet } from "../segment/segment-set.ts";

/** What the allocator needs from the memory behind it. Called with the lock held. */
export interface Backing {
  /**
   * Maps `chunks` more chunks at the end of the file. Throws, having changed nothing, if that
   * cannot be.
   */
  grow(chunks: number, huge: boolean): void;
  /**
   * Pages lost their last reference. Cancels what a load has not started there; true if something
   * is still being read into them, so that they must be held.
   */
  cancelLoad(start: number, end: number): boolean;
  /** True once nothing is being read into the pages. */
  isSettled(start: number, end: number): boolean;
  /** The first page at or after `page` that may be committed; beyond the file if none is. */
  nextData(page: number): number;
  /** The first page at or after `page` that was touched; beyond the file if none was. */
  nextTouched(page: number): number;
  /** The pages have been decommitted, and are about to become free or sub-released. */
  uncommitted(start: number, end: number): void;
  /** For checks: pages have just lost their last reference. */
  discarded?: ((start: number, end: number) => void) | undefined;
  /** For checks: the end of a message about pages without references. */
  whereDropped?: ((start: number, end: number) => string) | undefined;
  /** A thread died in the middle of a change; the runs are right again. */
  recovered(set: SegmentSet): void;
}

/** How `allocate` places pages: a sum of these. */
export const Placement = {
  /** The highest gap that is large enough, and its last pages; else the lowest and its first. */
  TopDown: 1,
  /** The pages may be recycled waste, since they will be committed anyway. */
  Recycle: 2,
  /** When nothing fits, the file may grow. */
  Grow: 4,
} as const;

/** A run in the form in which checkpoints store it. */
export type RunVisitor = (
  start: number,
  end: number,
  state: number,
  huge: boolean,
  refs: number,
  kind: number,
  group: number,
) => void;
