/**
 * A MemoryFile whose changes are tracked, as a save tracks them: what the tests of changes/ share.
 */
import { MemoryFile, type MemoryFileOptions, PAGE_SIZE } from "../../../src/index.ts";
import type { ChangeDetection } from "../../../src/changes/tracker.ts";
import { coreOf } from "../../../src/file/memory-file.ts";
import { collectRuns, usedRuns } from "../../../src/save/collect.ts";

/** The methods that there are here. */
export const DETECTIONS: readonly ChangeDetection[] = ["userfaultfd", "hashes"];

export class TrackedFile implements Disposable {
  readonly file: MemoryFile;
  readonly core: ReturnType<typeof coreOf>;

  constructor(detection: ChangeDetection, options: MemoryFileOptions = {}) {
    this.file = MemoryFile.create(options);
    this.core = coreOf(this.file);
    this.core.allocator.lock();
    try {
      this.core.changes.activate(detection);
    } finally {
      this.core.allocator.unlock();
    }
    if (!this.core.changes.tryBegin()) throw new Error("Another save owns the tracker");
  }

  /** The used pages that a take reports, ascending. */
  take(): number[] {
    const { runs } = collectRuns(this.core.allocator);
    const used = usedRuns(runs);
    const { start, length } = this.core.changes.take(used).runs;
    const isUsed = new Set(pagesOf(used.start, used.length));
    return pagesOf(start, length).filter((page) => isUsed.has(page));
  }

  /** Allocates pages and writes to each, so that all have memory. Returns the first page. */
  fill(pages: number): number {
    const range = this.file.allocate(pages * PAGE_SIZE);
    this.file.view(range).fill(1);
    return range.start / PAGE_SIZE;
  }

  write(page: number, value = 255): void {
    const start = page * PAGE_SIZE;
    this.file.view({ start, end: start + PAGE_SIZE })[7] = value;
  }

  [Symbol.dispose](): void {
    this.file.destroy();
  }
}

export function pagesOf(start: Uint32Array, length: Uint32Array): number[] {
  const pages: number[] = [];
  for (let i = 0; i < start.length; i++)
    for (let page = start[i]!; page < start[i]! + length[i]!; page++) pages.push(page);
  return pages;
}
