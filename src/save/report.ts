/** The report of a save. */
import type { EncodedManifest } from "../checkpoint/encode.ts";
import type { Manifest, SavedFile } from "../checkpoint/format.ts";
import { hex } from "../checkpoint/page-file.ts";
import { PAGE_SIZE } from "../pages/units.ts";
import type { Instant } from "./instant.ts";
import type { SavePlan, SaveReport } from "./options.ts";

/** The results of all passes of a save together. */
export interface Totals {
  frames: number;
  compressedFrames: number;
  writtenBytes: number;
  writtenPages: number;
  zeroPages: number;
  reusedPages: number;
}

/** A checkpoint as a save has left it. */
export interface SavedCheckpoint {
  readonly instant: Instant;
  readonly manifest: Manifest<SavedFile>;
  readonly encoded: EncodedManifest;
  /** True if it was there before. */
  readonly isUnchanged: boolean;
}

export function makeReport(
  plan: SavePlan,
  totals: Totals,
  { instant, manifest, encoded, isUnchanged }: SavedCheckpoint,
  durationMs: number,
): SaveReport {
  const { states, pauseMs, rounds, detection } = instant;
  const { id, files, pageFiles } = manifest;
  const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);
  const contentPages = sum(files.map(({ crcs }) => crcs.length));
  return {
    directory: plan.place,
    id: hex(id),
    isUnchanged,
    isConsistent: plan.isConsistent,
    pauseMs,
    rounds,
    detection,
    usedBytes: sum(states.map(({ usedPages }) => usedPages)) * PAGE_SIZE,
    pagesBytes: contentPages * PAGE_SIZE,
    writtenBytes: totals.writtenBytes,
    reusedBytes: totals.reusedPages * PAGE_SIZE,
    zeroBytes: totals.zeroPages * PAGE_SIZE,
    metaBytes: encoded.lengthBytes,
    extents: sum(files.map(({ pageMap }) => pageMap.extents.start.length)),
    pageFiles: pageFiles.length,
    compression: {
      codec: plan.compression,
      frames: totals.frames,
      compressedFrames: totals.compressedFrames,
      contentBytes: totals.writtenPages * PAGE_SIZE,
      storedBytes: totals.writtenBytes,
    },
    durationMs,
  };
}
