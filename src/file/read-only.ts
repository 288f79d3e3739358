/**
 * What a thread has of a file that it attached with `{ readOnly: true }`: the same object, whose
 * methods that change the file throw. (Own properties, so that the methods of other files stay as
 * fast as they are.) Views stay writable to the engine; the thread has promised not to write.
 */
import { describe } from "../core/parts.ts";
import { ReadOnlyError } from "../errors/errors.ts";
import type { PageMemory } from "./page-memory.ts";

const CHANGING = [
  "allocate",
  "incRef",
  "decRef",
  "decommit",
  "markEvictable",
  "markUnevictable",
  "markAllUnevictable",
  "startEvictions",
] as const satisfies readonly (keyof PageMemory)[];

export function makeReadOnly<File extends PageMemory & { readonly name: string }>(
  file: File,
): File {
  for (const method of CHANGING) {
    Object.defineProperty(file, method, {
      value: () => {
        throw new ReadOnlyError(describe(file.name), `${method}()`);
      },
    });
  }
  return file;
}
