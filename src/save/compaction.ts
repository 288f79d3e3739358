/**
 * Compaction: bounds the garbage of incremental saves. A save leaves page files that are live in
 * part. It moves live pages of old page files to its own, until at most half of what is stored is
 * dead, in at most MAX_PAGE_FILES files.
 *
 * A save moves at most twice what it wrote, or LEAST_MOVED_BYTES, so that a large file is emptied
 * by several saves. Each continues where the one before stopped, because an emptier file is chosen
 * first. Only a save that would leave too many files moves more. It then merges the smallest files
 * until the next one is much larger (the tiers of a log-structured merge tree), so that the saves
 * after it have room: docs/decisions/saving.md.
 */
import { RunCollector, type PageRuns } from "../changes/page-runs.ts";
import { PAGE_SIZE } from "../pages/units.ts";
import type { StoredExtents } from "./build-map.ts";
import type { FrameList } from "./frame-list.ts";

export const MAX_PAGE_FILES = 8;
/** Compaction begins a little below the bounds, because it may take several saves. */
const FILES_GOAL = MAX_PAGE_FILES - 2;
const DEAD_GOAL = 0.4;
/** A file is much larger than the merged bytes if it has more than this many times as many. */
const TIER_RATIO = 2;
/** The largest part of all live bytes that is merged, unless there are too many files. */
const MERGED_SHARE = 0.3;
export const LEAST_MOVED_BYTES = 64 * 2 ** 20;

/** How a page file of a save is used. The last file of the list is the one that the save writes. */
export interface PageFileUse {
  readonly sizeBytes: number;
  /** Stored bytes of live pages. */
  liveBytes: number;
}

/** How much of each page file is live. */
export function measureUse(
  files: readonly StoredExtents[],
  frames: FrameList,
  sizes: readonly number[],
): PageFileUse[] {
  const uses = sizes.map((sizeBytes) => ({ sizeBytes, liveBytes: 0 }));
  for (const { frame, length } of files) {
    for (let i = 0; i < frame.length; i++)
      uses[frames.pageFile[frame[i]!]!]!.liveBytes += length[i]! * bytesOfPage(frames, frame[i]!);
  }
  return uses;
}

/** Stored bytes of a page: its share of the frame. */
function bytesOfPage(frames: FrameList, frame: number): number {
  const paddedBytes = Math.ceil(frames.storedBytes[frame]! / PAGE_SIZE) * PAGE_SIZE;
  return paddedBytes / frames.pages[frame]!;
}

/** How many bytes to move out of each page file, by index. The last page file is never chosen. */
export function planMoves(
  given: readonly PageFileUse[],
  budgetBytes: number,
): ReadonlyMap<number, number> {
  const plan = new MovePlan(given, budgetBytes);
  plan.mergeSmallest();
  plan.emptyDead();
  return plan.moves;
}

class MovePlan {
  readonly moves = new Map<number, number>();
  /** The page files after the moves. */
  private readonly uses: PageFileUse[];
  private readonly target: { sizeBytes: number; liveBytes: number };
  private leftBytes: number;

  constructor(given: readonly PageFileUse[], budgetBytes: number) {
    this.uses = given.map((use) => ({ ...use }));
    this.target = { ...this.uses.at(-1)! };
    this.uses[this.uses.length - 1] = this.target;
    this.leftBytes = budgetBytes;
  }

  /** Merges the smallest files. Keeps to the budget unless there are too many files. */
  mergeSmallest(): void {
    let count = this.uses.filter(({ liveBytes }) => liveBytes > 0).length;
    if (count <= FILES_GOAL) return;
    const isForced = count > MAX_PAGE_FILES;
    const { liveBytes: allBytes } = this.sums();
    for (const index of this.oldBySize()) {
      const { liveBytes } = this.uses[index]!;
      const isMuchLarger =
        liveBytes > TIER_RATIO * this.target.liveBytes ||
        liveBytes + this.target.liveBytes > MERGED_SHARE * allBytes;
      if (count <= MAX_PAGE_FILES && isMuchLarger) return;
      if (!isForced && liveBytes > this.leftBytes) return;
      this.move(index, liveBytes);
      count--;
    }
  }

  /** Moves live pages out of the files with the smallest live part, within the budget. */
  emptyDead(): void {
    while (this.leftBytes > 0) {
      const { sizeBytes, liveBytes } = this.sums();
      if (sizeBytes - liveBytes <= DEAD_GOAL * sizeBytes) return;
      const emptiest = this.emptiest();
      if (emptiest === undefined) return;
      this.move(emptiest, Math.min(this.leftBytes, this.uses[emptiest]!.liveBytes));
    }
  }

  private move(index: number, bytes: number): void {
    this.moves.set(index, (this.moves.get(index) ?? 0) + bytes);
    this.uses[index]!.liveBytes -= bytes;
    this.target.sizeBytes += bytes;
    this.target.liveBytes += bytes;
    this.leftBytes -= bytes;
  }

  /** The sums of all files that stay. A file without live pages is removed. */
  private sums(): PageFileUse {
    const sums = { sizeBytes: 0, liveBytes: 0 };
    for (const { sizeBytes, liveBytes } of this.uses) {
      if (liveBytes === 0) continue;
      sums.sizeBytes += sizeBytes;
      sums.liveBytes += liveBytes;
    }
    return sums;
  }

  private oldBySize(): number[] {
    const { uses } = this;
    const old = uses.keys().filter((i) => i < uses.length - 1 && uses[i]!.liveBytes > 0);
    return [...old].sort((a, b) => uses[a]!.liveBytes - uses[b]!.liveBytes);
  }

  private emptiest(): number | undefined {
    const share = (i: number) => this.uses[i]!.liveBytes / this.uses[i]!.sizeBytes;
    let emptiest: number | undefined;
    for (const i of this.oldBySize()) {
      if (share(i) < 1 && (emptiest === undefined || share(i) < share(emptiest))) emptiest = i;
    }
    return emptiest;
  }
}

/** The pages of each MemoryFile that are moved. */
export function pagesToMove(
  files: readonly StoredExtents[],
  frames: FrameList,
  moves: ReadonlyMap<number, number>,
): PageRuns[] {
  const left = new Map(moves);
  return files.map(({ start, length, frame }) => {
    const runs = new RunCollector();
    for (let i = 0; i < start.length; i++) {
      const pageFile = frames.pageFile[frame[i]!]!;
      const bytes = left.get(pageFile);
      if (bytes === undefined || bytes <= 0) continue;
      const pageBytes = bytesOfPage(frames, frame[i]!);
      const pages = Math.min(length[i]!, Math.ceil(bytes / pageBytes));
      left.set(pageFile, bytes - pages * pageBytes);
      runs.add(start[i]!, start[i]! + pages);
    }
    return runs.runs;
  });
}
