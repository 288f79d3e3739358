/** The page map of a running file: its runs, what is loaded, and the slowest waits. */
import { FREE, HELD, RELEASING, SUB_RELEASED, USED, WASTE } from "../allocator/states.ts";
import { Word } from "../control/control.ts";
import type { FileCore } from "../core/core.ts";
import { NOTHING_LOADED } from "../load/load-stats.ts";
import { CHUNK_SIZE, HUGE_PAGE_SIZE, PAGE_SIZE, PAGES_PER_CHUNK } from "../pages/units.ts";
import {
  type AwaitRow,
  type FileMap,
  KIND_NAMES,
  type LiveUpdate,
  LoadMark,
  type MapModel,
  RUN_STATES,
  type RunRows,
} from "./model.ts";

export const PAGES_PER_UNIT = HUGE_PAGE_SIZE / PAGE_SIZE;

const STATE_INDEX: Readonly<Record<number, number>> = {
  [FREE]: RUN_STATES.indexOf("free"),
  [USED]: RUN_STATES.indexOf("used"),
  [WASTE]: RUN_STATES.indexOf("waste"),
  [HELD]: RUN_STATES.indexOf("held"),
  [RELEASING]: RUN_STATES.indexOf("releasing"),
  [SUB_RELEASED]: RUN_STATES.indexOf("sub-released"),
};

export function modelOf(cores: readonly FileCore[], title: string): MapModel {
  return {
    title,
    isLive: true,
    pageBytes: PAGE_SIZE,
    unitPages: PAGES_PER_UNIT,
    chunkPages: CHUNK_SIZE / PAGE_SIZE,
    states: RUN_STATES,
    kinds: KIND_NAMES,
    contents: [],
    codecs: [],
    files: cores.map(mapOf),
  };
}

function mapOf(core: FileCore): FileMap {
  const runs: RunRows = { start: [], length: [], state: [], kind: [], group: [], refs: [] };
  const sizePages = Atomics.load(core.words, Word.SizePages);
  const chunkHuge = new Array<number>(Math.ceil(sizePages / PAGES_PER_CHUNK)).fill(0);
  core.allocator.lock();
  try {
    core.allocator.visitRuns((start, end, state, huge, refs, kind, group) => {
      if (huge) chunkHuge.fill(1, Math.floor(start / PAGES_PER_CHUNK), end / PAGES_PER_CHUNK);
      if (state === FREE) return;
      runs.start.push(start);
      runs.length.push(end - start);
      runs.state.push(STATE_INDEX[state]!);
      runs.kind.push(kind);
      runs.group.push(group);
      runs.refs.push(refs);
    });
  } finally {
    core.allocator.unlock();
  }
  return { name: core.name, sizePages, chunkHuge, runs, extents: null };
}

/**
 * Changes whenever pages change their state. Equal counts of allocations and frees can hide a
 * change.
 */
function versionOf(core: FileCore): string {
  const words = [Word.SizePages, Word.UsedPages, Word.WastePages, Word.Discards];
  return words.map((word) => Atomics.load(core.words, word)).join(",");
}

export function updateOf(
  cores: readonly FileCore[],
  awaitsOf: (core: FileCore) => readonly AwaitRow[],
): LiveUpdate {
  return {
    nowMs: performance.now(),
    version: cores.map(versionOf).join(";"),
    files: cores.map((core) => {
      const { loadedBytes, totalBytes } = core.loader?.stats() ?? NOTHING_LOADED;
      return {
        units: core.mayMissPages ? encode(unitMarks(core)) : "",
        loadedBytes,
        totalBytes,
        usedBytes: Atomics.load(core.words, Word.UsedPages) * PAGE_SIZE,
        committedBytes: 0,
        awaits: awaitsOf(core),
      };
    }),
  };
}

function encode(marks: Uint8Array): string {
  return Buffer.from(marks.buffer).toString("base64");
}

function unitMarks(core: FileCore): Uint8Array {
  const units = Math.ceil(Atomics.load(core.words, Word.SizePages) / PAGES_PER_UNIT);
  const marks = new Uint8Array(units);
  for (let unit = 0; unit < units; unit++)
    marks[unit] = markOf(core, unit * PAGES_PER_UNIT, (unit + 1) * PAGES_PER_UNIT);
  return marks;
}

/** The mark of pages [start, end): the worst mark among them. */
function markOf(core: FileCore, start: number, end: number): number {
  const loader = core.loader!;
  if (loader.isLoaded(start, end)) return LoadMark.Loaded;
  return loader.failureOf(start, end) === undefined ? LoadMark.Pending : LoadMark.Failed;
}

/** A mark for each page of a unit, in base64. */
export function pageMarksOf(core: FileCore, unit: number): string {
  const marks = new Uint8Array(PAGES_PER_UNIT);
  if (core.mayMissPages) {
    for (let i = 0; i < marks.length; i++) {
      const page = unit * PAGES_PER_UNIT + i;
      marks[i] = markOf(core, page, page + 1);
    }
  }
  return encode(marks);
}
