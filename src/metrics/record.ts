/**
 * Records public calls: their duration, the bytes they wrote, their failures. Each call also
 * becomes an event (events.ts).
 */
import { count, Counter, countError, Histogram, observe } from "../control/counters.ts";
import { Field } from "../control/control.ts";
import type { FileCore } from "../core/core.ts";
import { PAGE_SIZE } from "../pages/units.ts";
import { publish } from "./events.ts";

/** The thing that a call of `awaitLoad` waited for. */
export type AwaitCause = "range" | "all" | "sync";

const AWAITS = {
  range: Histogram.AwaitRange,
  all: Histogram.AwaitAll,
  sync: Histogram.AwaitSync,
} as const;

/** Records the end of a wait for pages [start, end) that began at `beganMs`. */
function noteAwait(
  core: FileCore,
  cause: AwaitCause,
  pages: { readonly start: number; readonly end: number },
  beganMs: number,
  error?: unknown,
): void {
  const endedMs = performance.now();
  const waitMs = endedMs - beganMs;
  const fileId = core.control.fields[Field.FileId]!;
  observe(core.control.counters, AWAITS[cause], waitMs);
  if (error !== undefined) countError(core.control.counters, error);
  const start = pages.start * PAGE_SIZE;
  const end = pages.end * PAGE_SIZE;
  publish("pgalloc:await", { name: core.name, fileId, cause, start, end, endedMs, waitMs, error });
}

/** Records a wait that blocks the thread. */
export function recordAwaitSync(
  core: FileCore,
  pages: { readonly start: number; readonly end: number },
  wait: () => void,
): void {
  const beganMs = performance.now();
  try {
    wait();
  } catch (error) {
    noteAwait(core, "sync", pages, beganMs, error);
    throw error;
  }
  noteAwait(core, "sync", pages, beganMs);
}

/** Records a wait that begins now. */
export async function recordAwait(
  core: FileCore,
  cause: "range" | "all",
  pages: { readonly start: number; readonly end: number },
  wait: () => Promise<void>,
): Promise<void> {
  const beganMs = performance.now();
  try {
    await wait();
  } catch (error) {
    noteAwait(core, cause, pages, beganMs, error);
    throw error;
  }
  noteAwait(core, cause, pages, beganMs);
}

/** The figures of a save's report that are counted. */
interface SaveFigures {
  readonly directory?: string;
  readonly pagesBytes: number;
  readonly metaBytes: number;
  readonly zeroBytes: number;
  readonly durationMs: number;
  readonly writtenBytes?: number;
  readonly reusedBytes?: number;
  readonly pauseMs?: number;
}

/** Records a save of `cores`. Returns its promise's report. */
export async function recordSave<T extends SaveFigures>(
  cores: readonly FileCore[],
  where: unknown,
  save: Promise<T>,
): Promise<T> {
  const names = cores.map(({ name }) => name);
  try {
    const report = await save;
    // The figures are those of all files together, so one file counts them.
    const [first] = cores;
    if (first !== undefined) countSave(first, report);
    publish("pgalloc:save", { names, where, report });
    return report;
  } catch (error) {
    for (const { control } of cores.slice(0, 1)) {
      count(control.counters, Counter.SavesFailed);
      countError(control.counters, error);
    }
    publish("pgalloc:save", { names, where, error });
    throw error;
  }
}

function countSave({ control: { counters } }: FileCore, report: SaveFigures): void {
  observe(counters, Histogram.Save, report.durationMs);
  if (report.pauseMs !== undefined) observe(counters, Histogram.Pause, report.pauseMs);
  count(counters, Counter.SavedPagesBytes, report.writtenBytes ?? report.pagesBytes);
  count(counters, Counter.SavedMetaBytes, report.metaBytes);
  count(counters, Counter.ReusedBytes, report.reusedBytes ?? 0);
  count(counters, Counter.ZeroBytes, report.zeroBytes);
}

/** Records the end of a restore. */
export async function recordLoad(core: FileCore): Promise<void> {
  const { loader } = core;
  if (loader === undefined) return;
  const beganMs = performance.now();
  await loader.finished;
  const stats = loader.stats();
  if (stats.error !== null) countError(core.control.counters, stats.error);
  publish("pgalloc:load", { name: core.name, stats, durationMs: performance.now() - beganMs });
}
