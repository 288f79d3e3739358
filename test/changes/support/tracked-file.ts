/** A MemoryFile whose changes are detected as by a save, for the tests of changes/. */
import { PageHashes } from "../../../src/changes/page-hashes.ts";
import type { ChangeDetection, ChangeTracker } from "../../../src/changes/tracker.ts";
import { coreOf } from "../../../src/file/memory-file.ts";
import { MemoryFile, type MemoryFileOptions, PAGE_SIZE } from "../../../src/index.ts";
import { collectRuns, usedRuns } from "../../../src/save/collect.ts";

/** The methods that this machine supports. */
export const DETECTIONS: readonly ChangeDetection[] = ["userfaultfd", "hashes"];

export class TrackedFile implements Disposable {
  readonly file: MemoryFile;
  readonly core: ReturnType<typeof coreOf>;
  private readonly tracker: ChangeTracker;
  /** The copies that a save would have stored. A page without a copy is zero. */
  private readonly stored = new Map<number, Uint8Array>();

  constructor(detection: ChangeDetection, options: MemoryFileOptions = {}) {
    this.file = MemoryFile.create(options);
    this.core = coreOf(this.file);
    const { changes, mapping, words } = this.core;
    if (detection === "hashes") {
      const memory = { fd: mapping.fd, base: mapping.base, sizePages: () => words[3]! };
      this.tracker = new PageHashes(memory, {
        isZero: (page) => !this.stored.has(page),
        isEqual: (page, contents) => {
          const copy = this.stored.get(page);
          return copy !== undefined && Buffer.compare(copy, contents) === 0;
        },
      });
      return;
    }
    this.tracker = changes;
    activate(this.core);
    if (!changes.tryBegin()) throw new Error("Another save owns the tracker");
  }

  /** The used pages that a take reports, ascending. The method that compares hashes stores them. */
  take(): number[] {
    const { runs } = collectRuns(this.core.allocator);
    const used = usedRuns(runs);
    const { start, length } = this.tracker.take(used).runs;
    const isUsed = new Set(pagesOf(used.start, used.length));
    const taken = pagesOf(start, length).filter((page) => isUsed.has(page));
    if (this.tracker.detection === "userfaultfd") return taken;
    for (const page of taken) this.store(page);
    for (const page of this.stored.keys()) if (!isUsed.has(page)) this.stored.delete(page);
    return taken;
  }

  private store(page: number): void {
    const start = page * PAGE_SIZE;
    const contents = this.file.view({ start, end: start + PAGE_SIZE }).slice();
    if (contents.some((byte) => byte !== 0)) this.stored.set(page, contents);
    else this.stored.delete(page);
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

export function activate({ allocator, changes }: ReturnType<typeof coreOf>): void {
  allocator.lock();
  try {
    changes.activate();
  } finally {
    allocator.unlock();
  }
}

export function pagesOf(start: Uint32Array, length: Uint32Array): number[] {
  const pages: number[] = [];
  for (let i = 0; i < start.length; i++)
    for (let page = start[i]!; page < start[i]! + length[i]!; page++) pages.push(page);
  return pages;
}
