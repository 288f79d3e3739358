/** The interval set, usable by itself: `import { SegmentSet } from "pgalloc/segment"`. */
export * from "./segment-set.ts";
