/**
 * A file that a thread attached with `{ readOnly: true }`: the same object, with methods that
 * change the file replaced by ones that throw. (They are own properties, so the methods of other
 * files stay as fast as they are.) The engine cannot make views read-only; the thread has promised
 * not to write.
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
