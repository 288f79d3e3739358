/**
 * A file's memory as a checkpoint must restore it: the dump of its runs, and every live page that
 * is not zero.
 */
import { MemoryFile, PAGE_SIZE } from "../../../src/index.ts";
import { coreOf } from "../../../src/file/memory-file.ts";
import { usedRuns, collectRuns } from "../../../src/save/collect.ts";

export interface Contents {
  readonly dump: string;
  /** The bytes of each live page that is not zero, by page index. */
  readonly pages: ReadonlyMap<number, string>;
}

const ZERO_PAGE = Bun.hash(new Uint8Array(PAGE_SIZE));

/** Reads every live page. Precondition: all is loaded. */
export function contentsOf(file: MemoryFile): Contents {
  const pages = new Map<number, string>();
  const { start, length } = usedRuns(collectRuns(coreOf(file).allocator).runs);
  for (let run = 0; run < start.length; run++) {
    const bytes = file.view({
      start: start[run]! * PAGE_SIZE,
      end: (start[run]! + length[run]!) * PAGE_SIZE,
    });
    for (let page = 0; page < length[run]!; page++) {
      const hash = Bun.hash(bytes.subarray(page * PAGE_SIZE, (page + 1) * PAGE_SIZE));
      if (hash !== ZERO_PAGE) pages.set(start[run]! + page, hash.toString());
    }
  }
  return { dump: file.dump(), pages };
}

/**
 * A file of `count` pages of one allocation; page i holds i + `seed` in its first word and is zero
 * otherwise.
 */
export function numberedFile(count: number, seed: number): MemoryFile {
  const file = MemoryFile.create({ name: `numbered-${seed}` });
  const words = file.view(file.allocate(count * PAGE_SIZE), Uint32Array);
  for (let page = 0; page < count; page++) words[(page * PAGE_SIZE) / 4] = page + seed;
  return file;
}

/** Throws unless pages [from, to) are those of `numberedFile`. Precondition: they are loaded. */
export function checkNumbered(file: MemoryFile, seed: number, from: number, to: number): void {
  const words = file.view({ start: from * PAGE_SIZE, end: to * PAGE_SIZE }, Uint32Array);
  for (let page = from; page < to; page++) {
    const found = words[((page - from) * PAGE_SIZE) / 4];
    if (found !== page + seed)
      throw new Error(`Page ${page} holds ${found}, expected ${page + seed}`);
  }
}
