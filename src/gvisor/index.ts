/**
 * pgalloc/gvisor: reads and writes checkpoints in gVisor's own format, `pages_meta.img` and
 * `pages.img`.
 */
export type { LoadOptions } from "../core/options.ts";
export type { SaveReport } from "../save/save.ts";
export { type ExportOptions, exportAll, exportTo } from "./export.ts";
export type { CheckpointFiles, LoadAllOptions } from "../file/several.ts";
export { importAll, importFrom } from "./import.ts";
