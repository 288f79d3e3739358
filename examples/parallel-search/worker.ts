/**
 * A searching Worker: attaches to the file that the main thread restores, and searches its part of
 * the rows.
 */
import { MemoryFile, type MemoryFileHandle } from "pgalloc";
import { WordIndex } from "../word-search/index-file.ts";
import { searchRows } from "./search.ts";

export interface SearchOrder {
  readonly handle: MemoryFileHandle;
  readonly queries: readonly number[];
  readonly first: number;
  readonly last: number;
  readonly count: number;
}

const scope = globalThis as unknown as {
  onmessage: ((event: { data: SearchOrder }) => void) | null;
  postMessage(message: unknown): void;
};

scope.onmessage = ({ data: { handle, queries, first, last, count } }) => {
  const file = MemoryFile.attach(handle);
  scope.postMessage(searchRows(new WordIndex(file, file.userData!), queries, first, last, count));
};
scope.postMessage("ready");
