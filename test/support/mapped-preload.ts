/**
 * Runs tests over mapped memory: `bun test --preload ./test/support/mapped-preload.ts test/file`.
 * Every `loadFrom` of a directory maps the page files, unless the test passes another value.
 */
import { type LoadOptions, MemoryFile } from "../../src/index.ts";

const { loadFrom } = MemoryFile;
MemoryFile.loadFrom = (where: string, options?: LoadOptions | null) =>
  loadFrom.call(
    MemoryFile,
    where,
    options?.path == null && typeof where === "string" ? { mapped: true, ...options } : options,
  ) as Promise<MemoryFile>;
