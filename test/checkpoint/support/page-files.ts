/** The files of a checkpoint's directory. Their names contain random ids. */
import { readdirSync } from "node:fs";
import { join } from "node:path";

/** The path of the only page file. @throws {Error} if there are more or none */
export function onlyPageFile(directory: string): string {
  const names = pageFiles(directory);
  if (names.length !== 1) throw new Error(`Expected one page file, got ${names.join(", ")}`);
  return join(directory, names[0]!);
}

/** The names of the page files, in no order. */
export function pageFiles(directory: string): string[] {
  return readdirSync(directory).filter((name) => /^pages-[0-9a-f]{16}$/.test(name));
}

/** The names in the directory, sorted, "pages" in place of a page file's name. */
export function listing(directory: string): string[] {
  return readdirSync(directory)
    .map((name) => name.replace(/^pages-[0-9a-f]{16}$/, "pages"))
    .sort();
}
