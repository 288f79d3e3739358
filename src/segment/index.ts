/** The interval set, usable by itself: `import { SegmentSet } from "pgalloc/segment"`. */
export { checkInvariants } from "./invariants.ts";
export {
  MAX_CAPACITY,
  type SegmentLayout,
  type SegmentTables,
  segmentLayout,
  segmentLengths,
} from "./layout.ts";
export { rebuildTables } from "./rebuild.ts";
export { SegmentSet } from "./segment-set.ts";
export { CLASS_MASK, MAX_TAG, type RunColumns, type Segment } from "./value.ts";
