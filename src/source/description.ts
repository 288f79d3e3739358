/**
 * PageSource: the only way in which a load reads contents.
 *
 * A source is a description: plain data that postMessage copies. Each reading thread opens it as a
 * reader of its own (open.ts). A source has contents, byte sequences with an index: 0 is the
 * manifest, 1 and up are page files (checkpoint/page-map.ts).
 */

import type { RemoteSource } from "./remote-source.ts";

/** How files are read. */
export type FileEngine = "cache" | "uring";

/** A file of a FileSource. */
export interface FileContent {
  /** Open for reading; -1 if there is no such content. */
  readonly fd: number;
  /** A descriptor of the same file without the page cache (O_DIRECT), or -1. */
  readonly directFd: number;
  /** For error messages. */
  readonly path: string;
}

/** Local files (file-source.ts). */
export interface FileSource {
  readonly kind: "file";
  readonly contents: readonly FileContent[];
  readonly engine: FileEngine;
  /** One word: how many loads hold the source. */
  readonly holders: SharedArrayBuffer;
}

/** A program's own source (module-source.ts). */
export interface ModuleSource {
  readonly kind: "module";
  /** URL of a module that exports `openReader` (a PageSourceModule). */
  readonly module: string;
  /** Passed to `openReader`. structuredClone must be able to copy it. */
  readonly options?: unknown;
  /** For error messages: the name of each content, such as its URL. */
  readonly names?: readonly string[] | undefined;
}

/** Where a load reads contents from. postMessage can copy it. */
export type PageSource = FileSource | ModuleSource | RemoteSource;
