/**
 * ModuleSource: a program brings its own source as a module. Each reading thread imports it and
 * calls its `openReader`.
 */
import { showValue } from "../../ffi/index.ts";
import { onUse } from "../errors/lazy-import.ts";
import { AsyncReader, type ContentReader } from "./async-reader.ts";
import type { ModuleSource } from "./description.ts";
import type { ReaderUse, SourceReader } from "./reader.ts";

/** The exports of such a module. */
export interface PageSourceModule {
  /** Called in each reading thread, and for each `use`: demand may have its own connection. */
  openReader(options: unknown, use: ReaderUse): ContentReader | Promise<ContentReader>;
}

/**
 * @throws {TypeError} if the module is not a PageSourceModule
 * @throws its own errors
 */
export async function openModuleReader(
  source: ModuleSource,
  use: ReaderUse,
): Promise<SourceReader> {
  if (typeof source.module !== "string")
    throw new TypeError(`Expected module to be a string, got ${showValue(source.module)}`);
  const loaded = (await onUse(() => import(source.module))()) as Partial<PageSourceModule>;
  if (typeof loaded.openReader !== "function")
    throw new TypeError(`Expected ${source.module} to export a function openReader`);
  const reader = await loaded.openReader(source.options, use);
  if (typeof reader?.read !== "function")
    throw new TypeError(`Expected openReader of ${source.module} to return an object with read()`);
  return new AsyncReader(reader);
}
