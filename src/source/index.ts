/** Public as `pgalloc/source`: page sources, and what a program needs to write its own. */
export {
  AsyncReader,
  type ContentReader,
  type ContentRequest,
} from "./async-reader.ts";
export type { FileSource, ModuleSource, PageSource } from "./description.ts";
export type { PageSourceModule } from "./module-source.ts";
export { openReader } from "./open.ts";
export { readContent } from "./read-content.ts";
export type {
  ReadCompletions,
  ReaderCapabilities,
  ReaderUse,
  SourceReader,
} from "./reader.ts";
