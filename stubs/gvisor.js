// Written by scripts/stubs.ts.
import { needsBun } from "./needs-bun.js";

export const exportAll = needsBun("exportAll");
export const exportTo = needsBun("exportTo");
export const importAll = needsBun("importAll");
export const importFrom = needsBun("importFrom");
