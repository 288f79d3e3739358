/** The interval set, usable by itself: `import { SegmentSet } from "pgalloc/segment"`. */
export { MAX_CAPACITY, type SegmentLayout, type SegmentTables, segmentLayout, segmentWords } from "./layout.ts";
export * from "./segment-set.ts";
