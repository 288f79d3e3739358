/**
 * Compaction: bounds the garbage of incremental saves. A save leaves page files that are live in
 * part. It moves live pages of old page files to its own, until at most half of what is stored is
 * dead, in at most MAX_PAGE_FILES files.
 *
 * A save moves at most twice what it wrote, or LEAST_MOVED_BYTES, so that a large file is emptied
 * by several saves. Each goes on where the one before stopped, since an emptier file is chosen
 * first. Only a save that would leave too many files moves more. It then merges the smallest files
 * until the next one is much larger (the tiers of a log-structured merge tree), so that the saves
 * after it have room: docs/decisions/saving.md.
 */
import { RunCollector, type PageRuns } from "../changes/page-runs.ts";
import { PAGE_SIZE } from "../pages/units.ts";
import type { StoredExtents } from "./build-map.ts";
import type { FrameList } from "./frame-list.ts";

export const MAX_PAGE_FILES = 8;
/** Compaction begins a little before the bounds, since it may take some saves. */
const FILES_GOAL = MAX_PAGE_FILES - 2;
const DEAD_GOAL = 0.4;
/** A file of more than so many times the merged bytes is much larger than they are. */
const TIER_RATIO = 2;
/** What a merge makes at most of all live bytes, if it need not make more. */
const MERGED_SHARE = 0.3;
export const LEAST_MOVED_BYTES = 64 * 2 ** 20;

/**
 * Sizes of the page files of a save, in the order of its list. The last one is the one that it
 * writes.
 */
export interface PageFileUse {
  readonly sizeBytes: number;
  /** Of frames, as far as their pages are live. */
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

/**
 * Which bytes of which page files to move, by index. The last page file is never chosen.
 */
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
  /** As they will be. */
  private readonly uses: PageFileUse[];
  private readonly target: { sizeBytes: number; liveBytes: number };
  private leftBytes: number;

  constructor(given: readonly PageFileUse[], budgetBytes: number) {
    this.uses = given.map((use) => ({ ...use }));
    this.target = { ...this.uses.at(-1)! };
    this.uses[this.uses.length - 1] = this.target;
    this.leftBytes = budgetBytes;
  }

  /** Makes files fewer: within the budget if they are not too many yet. */
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

  /** Moves live pages of the emptiest files, as far as the budget goes. */
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

  /** Of files that stay: a file without live pages goes. */
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

/** The pages to move, of each file. */
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
