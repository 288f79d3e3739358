// Written by scripts/stubs.ts.
import { needsBun } from "./needs-bun.js";

export const AsyncReader = needsBun("AsyncReader");
export const openReader = needsBun("openReader");
export const readContent = needsBun("readContent");
