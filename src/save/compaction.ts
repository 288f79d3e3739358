/**
 * Compaction: bounds the garbage of incremental saves. A save leaves page files that are live in
 * part. It moves live pages of old page files to its own, until at most half of what is stored is
 * dead, in at most MAX_PAGE_FILES files.
 *
 * A save moves at most twice what it wrote, or LEAST_MOVED_BYTES, so that a large file is emptied
 * by several saves. Each goes on where the one before stopped, since an emptier file is chosen
 * first. Only if there are too many files it moves more, the smallest ones: files grow by that, so
 * that it happens less and less often.
 */
import { RunCollector, type PageRuns } from "../changes/page-runs.ts";
import { PAGE_SIZE } from "../pages/units.ts";
import type { StoredExtents } from "./build-map.ts";
import type { FrameList } from "./frame-list.ts";

export const MAX_PAGE_FILES = 8;
/** Compaction begins a little before the bounds, since it may take some saves. */
const FILES_GOAL = MAX_PAGE_FILES - 2;
const DEAD_GOAL = 0.4;
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
  const moves = new Map<number, number>();
  const uses = given.map((use) => ({ ...use }));
  const last = uses.length - 1;
  let leftBytes = budgetBytes;
  for (;;) {
    const live = uses.filter(({ liveBytes }) => liveBytes > 0);
    const storedBytes = live.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
    const liveBytes = live.reduce((sum, use) => sum + use.liveBytes, 0);
    const hasTooMany = live.length > FILES_GOAL;
    if (!hasTooMany && storedBytes - liveBytes <= DEAD_GOAL * storedBytes) break;
    const victim = chooseVictim(uses, hasTooMany);
    const use = uses[victim ?? last]!;
    const isForced = live.length > MAX_PAGE_FILES;
    if (victim === undefined || (leftBytes <= 0 && !isForced)) break;
    const moved = isForced ? use.liveBytes : Math.min(leftBytes, use.liveBytes);
    moves.set(victim, (moves.get(victim) ?? 0) + moved);
    leftBytes -= moved;
    // Emptied files go; what is moved is stored anew.
    uses[victim] = { sizeBytes: use.sizeBytes, liveBytes: use.liveBytes - moved };
    const target = uses[last]!;
    uses[last] = {
      sizeBytes: target.sizeBytes + moved,
      liveBytes: target.liveBytes + moved,
    };
  }
  return moves;
}

/** To have fewer files the one with the least to move; to have less garbage the emptiest one. */
function chooseVictim(uses: readonly PageFileUse[], hasTooMany: boolean): number | undefined {
  const cost = ({ liveBytes, sizeBytes }: PageFileUse) =>
    hasTooMany ? liveBytes : liveBytes / sizeBytes;
  let victim: number | undefined;
  for (let i = 0; i < uses.length - 1; i++) {
    const { liveBytes, sizeBytes } = uses[i]!;
    const isFullyLive = liveBytes >= sizeBytes;
    if (liveBytes === 0 || (isFullyLive && !hasTooMany)) continue;
    if (victim === undefined || cost(uses[i]!) < cost(uses[victim]!)) victim = i;
  }
  return victim;
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
