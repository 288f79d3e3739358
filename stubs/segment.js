// Written by scripts/stubs.ts.
import { needsBun } from "./needs-bun.js";

export const MAX_CAPACITY = 1073741824;
export const MAX_TAG = 65535;
export const SegmentSet = needsBun("SegmentSet");
