/**
 * The pages of a newer checkpoint whose contents differ from an older one's. Checkpoints of a place
 * share page files, so a page whose contents are at the same place of the same page file has not
 * changed. A page that was written again counts as changed, whatever its contents.
 */
import type { PageFile } from "../checkpoint/format.ts";
import type { PageMap } from "../checkpoint/page-map.ts";
import { HUGE_PAGE_SIZE, PAGE_SIZE } from "../pages/units.ts";
import type { Slices } from "../threads/slices.ts";

/** The places of the contents of a MemoryFile's pages. */
export interface StoredPlaces {
  readonly map: PageMap;
  readonly pageFiles: readonly PageFile[];
}

/** Pages [start, start + length), half-open. */
export interface PageRun {
  readonly start: number;
  readonly length: number;
}

export interface ChangedPages {
  /** The newer map without unchanged pages. */
  readonly map: PageMap;
  /** Ranks in the newer map of the pages in `map`, in order. */
  readonly ranks: Uint32Array;
  readonly unchanged: readonly PageRun[];
}

const PAGES_PER_UNIT = HUGE_PAGE_SIZE / PAGE_SIZE;

/** The pages of extents that are looked at between two pauses: 0.1 ms. */
const PAUSE_PAGES = 8192;

export function* findChangedPages(older: StoredPlaces, newer: StoredPlaces): Slices<ChangedPages> {
  const places = yield* placesOf(older);
  const ids = newer.pageFiles.map(({ id }) => older.pageFiles.findIndex((old) => old.id === id));
  const { extents, frames } = newer.map;
  const kept: Record<"start" | "length" | "frame" | "framePage", number[]> = {
    start: [],
    length: [],
    frame: [],
    framePage: [],
  };
  const ranks: number[] = [];
  const unchanged: PageRun[] = [];
  let rank = 0;
  let pauseAt = PAUSE_PAGES;
  for (let i = 0; i < extents.start.length; i++) {
    const frame = extents.frame[i]!;
    const file = ids[frames.content[frame]! - 1] ?? -1;
    const firstPlace = placeOf(frames.offset[frame]!, extents.framePage[i]!);
    const isSame = (at: number) =>
      file >= 0 &&
      places.file[extents.start[i]! + at] === file + 1 &&
      places.place[extents.start[i]! + at] === firstPlace + at;
    for (let at = 0; at < extents.length[i]!; ) {
      const same = isSame(at);
      const first = at;
      while (at < extents.length[i]! && isSame(at) === same) at++;
      const run = { start: extents.start[i]! + first, length: at - first };
      if (same) unchanged.push(run);
      else {
        kept.start.push(run.start);
        kept.length.push(run.length);
        kept.frame.push(frame);
        kept.framePage.push(extents.framePage[i]! + first);
        for (let page = first; page < at; page++) ranks.push(rank + page);
      }
    }
    rank += extents.length[i]!;
    if (rank >= pauseAt) {
      pauseAt = rank + PAUSE_PAGES;
      yield;
    }
  }
  const columns = {
    start: Uint32Array.from(kept.start),
    length: Uint32Array.from(kept.length),
    frame: Uint32Array.from(kept.frame),
    framePage: Uint32Array.from(kept.framePage),
  };
  return { map: { extents: columns, frames }, ranks: Uint32Array.from(ranks), unchanged };
}

/** For each page: the page file's index plus 1 (0: no contents), and the place in it. */
function* placesOf({ map }: StoredPlaces): Slices<{ file: Uint32Array; place: Float64Array }> {
  const { extents, frames } = map;
  const last = extents.start.length - 1;
  const pages = last < 0 ? 0 : extents.start[last]! + extents.length[last]!;
  const file = new Uint32Array(pages);
  const place = new Float64Array(pages);
  let seen = 0;
  for (let i = 0; i < extents.start.length; i++) {
    const frame = extents.frame[i]!;
    const first = placeOf(frames.offset[frame]!, extents.framePage[i]!);
    for (let at = 0; at < extents.length[i]!; at++) {
      file[extents.start[i]! + at] = frames.content[frame]!;
      place[extents.start[i]! + at] = first + at;
    }
    seen += extents.length[i]!;
    if (seen < PAUSE_PAGES) continue;
    seen = 0;
    yield;
  }
  return { file, place };
}

/** One number for each page of a frame, because frames begin at multiples of PAGE_SIZE. */
function placeOf(offset: number, framePage: number): number {
  return (offset / PAGE_SIZE) * PAGES_PER_UNIT + framePage;
}
