/**
 * The folders of the library, bottom to top. A file imports from its own folder and from lower
 * rows.
 */
export const ROWS: readonly (readonly string[])[] = [
  ["ffi"],
  ["segment", "errors"],
  ["pages", "threads"],
  ["control"],
  ["codec", "aio", "http"],
  ["allocator"],
  ["memory", "eviction", "accounting", "changes"],
  ["checkpoint", "source"],
  ["load", "remote"],
  ["core"],
  ["save", "restore", "metrics"],
  ["file"],
  ["data", "gvisor", "map"],
  ["index", "worker"],
  ["cli"],
];

/** "src/load/loader.ts" is in folder "load", "src/index.ts" in "index", "ffi/libc.ts" in "ffi". */
export function folderOf(path: string): string {
  const [top, second] = path.split("/") as [string, string];
  return top === "ffi" ? "ffi" : second.replace(/\.ts$/, "");
}

/** Rows are counted from the bottom. @throws {Error} for a folder that has no row */
export function rowOf(path: string): number {
  const row = ROWS.findIndex((folders) => folders.includes(folderOf(path)));
  if (row < 0) throw new Error(`Expected a row in test/tidy/folders.ts for the folder of ${path}`);
  return row;
}
