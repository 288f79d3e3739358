/** The interval set, usable by itself: `import { SegmentSet } from "pgalloc/segment"`. */
export { MAX_CAPACITY } from "./layout.ts";
export { SegmentSet } from "./segment-set.ts";
export { MAX_TAG, type RunColumns, type Segment, type VisitRun } from "./value.ts";
