/**
 * The states of a page, and the tag that stores a run's state, page size and kind in the
 * allocator's SegmentSet.
 *
 *                      allocate                 last decRef
 *   void ──grow──▶ free ─────────▶ used ─────────────────────▶ waste ◀──load done── held
 *                   ▲               ▲ │                         │ │
 *                   │               │ └─ last decRef while a load writes to it ─▶ held
 *                   │               └────── recycle ────────────┘ │ releaser
 *                   │                                             ▼
 *                   └──────────── decommitted ─────────────── releasing ──▶ sub-released
 *                   ▲                                                          │
 *                   └────── all pages of the huge page are sub-released ───────┘
 *
 * - Void: beyond the file's size; in no run. `allocate` grows the file by whole chunks and makes
 *   them free.
 * - Free: uncommitted, reads as zero. `allocate` makes it used.
 * - Used: has references. Committed if its users touched it.
 * - Waste: has no references; its contents are unknown. The releaser decommits it. An allocation
 *   that will commit its pages anyway may take it back (recycling), which saves decommitting and
 *   committing.
 * - Held: like waste, but a load still writes to it. It becomes waste when the load is done.
 * - Releasing: the releaser is decommitting it, without the lock.
 * - Sub-released: decommitted pages of a huge page of which other pages are still in use. They
 *   become free together with the whole huge page, which is decommitted once more as a whole,
 *   because the kernel may have rebuilt the huge page meanwhile.
 *
 * Source: the state comment above MemoryFile in gVisor's pgalloc.go. "Held" replaces the flag of
 * its async loader.
 */

/**
 * Class of a run: the state times 2, plus 1 in chunks meant for huge pages. The first four can be
 * searched.
 */
export const FREE = 0;
export const WASTE = 2;
export const USED = 4;
export const HELD = 6;
export const RELEASING = 8;
export const SUB_RELEASED = 10;

export const HUGE = 1;
export const SEARCHED_CLASSES = 4;

/**
 * A tag is class | kind << KIND_SHIFT. Pages that are not used have kind 0 (System) and group 0.
 * Kinds 0 to 3 (System to Tmpfs) make tags below 64, whose runs are one byte in a
 * SegmentSet (segment/value.ts).
 */
export const KIND_SHIFT = 4;

const STATE_MASK = 14;

export const stateOf = (tag: number): number => {
  return tag & STATE_MASK;
};

export function kindOf(tag: number): number {
  return tag >>> KIND_SHIFT;
}
