/** `MemoryFile.metrics()`: a plain snapshot of the counters of a file's threads. */
import { fileStatus } from "../../ffi/index.ts";
import type { ChangeCounters } from "../changes/changes.ts";
import {
  Counter,
  Histogram,
  type HistogramSnapshot,
  readCount,
  readErrors,
  readHistogram,
} from "../control/counters.ts";
import { Field, MAX_PARTICIPANTS, PARTICIPANT_WORDS, Word } from "../control/control.ts";
import { Counter as Requests, openCounters } from "../http/counters.ts";
import type { FileCore } from "../core/core.ts";
import { Flag } from "../core/check-options.ts";
import { type LoadStats, NOTHING_LOADED } from "../load/load-stats.ts";
import { PAGE_SIZE } from "../pages/units.ts";
import { requestCounters } from "../source/describe.ts";

/** Bytes of a file's memory. */
export interface MemoryMetrics {
  /** Anonymous memory, or the file at `path`. */
  readonly backing: "memory" | "disk";
  /** The file's size; used, waste and free bytes add up to it. */
  readonly sizeBytes: number;
  /** Pages with references. */
  readonly usedBytes: number;
  /** Pages without references that are not yet returned to the kernel. */
  readonly wasteBytes: number;
  readonly freeBytes: number;
  /** Memory that the kernel spends on the file, without pages of page files. */
  readonly committedBytes: number;
  /** Pages that are mapped from page files, and private copies of those that were written. */
  readonly mappedBytes: number;
  readonly limitBytes: number;
  /** All allocations so far, those that were freed again included. */
  readonly allocations: { readonly count: number; readonly bytes: number };
}

/** Counters of a restore; `loadStats()` has the rest. */
export interface LoadMetrics {
  readonly isLoading: boolean;
  readonly totalBytes: number;
  /** Loaded because a thread waited for them, and loaded by the background pass. */
  readonly loadedBytes: { readonly demand: number; readonly background: number };
  readonly failedBytes: number;
  readonly hugeBytes: number;
  readonly smallBytes: number;
  readonly readCalls: number;
  /** Requests to a server; null if the contents are local. */
  readonly requests: RequestMetrics | null;
}

/** Requests for contents in a remote place. */
export interface RequestMetrics {
  readonly sent: number;
  /** Repeated after a failure, and sent a second time because the first answer was late. */
  readonly retries: number;
  readonly hedges: number;
  readonly receivedBytes: number;
  /** Contents that were read again because what came did not match its checksum. */
  readonly refetchedBytes: number;
}

export interface SaveMetrics {
  /** Saves that succeeded, by duration. */
  readonly durations: HistogramSnapshot;
  readonly failed: number;
  /** How long consistent saves stopped the program. */
  readonly pauses: HistogramSnapshot;
  /** Bytes written to page files and to manifests, and bytes left in the files of earlier saves. */
  readonly pagesBytes: number;
  readonly metaBytes: number;
  readonly reusedBytes: number;
  readonly zeroBytes: number;
}

/** Counters of a file since it was made, for all its threads. */
export interface FileMetrics {
  readonly name: string;
  readonly threads: number;
  readonly memory: MemoryMetrics;
  readonly load: LoadMetrics;
  /** Waits for pages that were not loaded, by the kind of wait. */
  readonly awaits: {
    readonly range: HistogramSnapshot;
    readonly all: HistogramSnapshot;
    readonly sync: HistogramSnapshot;
  };
  readonly saves: SaveMetrics;
  /** Work of finding written pages; all zeros before the first save that needs it. */
  readonly changes: ChangeCounters;
  /** Failed saves, loads and waits by code; "system" for the operating system's errors. */
  readonly errors: Readonly<Record<string, number>>;
}

export function metricsOf(core: FileCore): FileMetrics {
  const { counters } = core.control;
  return {
    name: core.name,
    threads: countThreads(core.words),
    memory: memoryOf(core),
    load: loadOf(core.loader?.stats() ?? NOTHING_LOADED, requestsOf(core)),
    awaits: {
      range: readHistogram(counters, Histogram.AwaitRange),
      all: readHistogram(counters, Histogram.AwaitAll),
      sync: readHistogram(counters, Histogram.AwaitSync),
    },
    saves: {
      durations: readHistogram(counters, Histogram.Save),
      failed: readCount(counters, Counter.SavesFailed),
      pauses: readHistogram(counters, Histogram.Pause),
      pagesBytes: readCount(counters, Counter.SavedPagesBytes),
      metaBytes: readCount(counters, Counter.SavedMetaBytes),
      reusedBytes: readCount(counters, Counter.ReusedBytes),
      zeroBytes: readCount(counters, Counter.ZeroBytes),
    },
    changes: core.changes.counters(),
    errors: readErrors(counters),
  };
}

function memoryOf(core: FileCore): MemoryMetrics {
  const { words } = core;
  const { fields } = core.control;
  const sizePages = Atomics.load(words, Word.SizePages);
  const usedPages = Atomics.load(words, Word.UsedPages);
  const wastePages = Atomics.load(words, Word.WastePages);
  return {
    backing: (fields[Field.Flags]! & Flag.OnDisk) === 0 ? "memory" : "disk",
    sizeBytes: sizePages * PAGE_SIZE,
    usedBytes: usedPages * PAGE_SIZE,
    wasteBytes: wastePages * PAGE_SIZE,
    // The three words change one after another, so their sum may be wrong for an instant.
    freeBytes: Math.max(0, sizePages - usedPages - wastePages) * PAGE_SIZE,
    committedBytes: fileStatus(core.mapping.fd).allocatedBytes,
    mappedBytes: (core.mapping.overlay?.pages ?? 0) * PAGE_SIZE,
    limitBytes: fields[Field.LimitPages]! * PAGE_SIZE,
    allocations: {
      count: fields[Field.Allocations]!,
      bytes: fields[Field.AllocatedPages]! * PAGE_SIZE,
    },
  };
}

function requestsOf({ loader }: FileCore): RequestMetrics | null {
  const handle = loader === undefined ? null : requestCounters(loader.state.handle.source);
  if (handle === null) return null;
  const counters = openCounters(handle);
  return {
    sent: counters[Requests.Requests]!,
    retries: counters[Requests.Retries]!,
    hedges: counters[Requests.Hedges]!,
    receivedBytes: counters[Requests.ReceivedBytes]!,
    refetchedBytes: loader!.stats().refetchedBytes,
  };
}

function loadOf(stats: LoadStats, requests: RequestMetrics | null): LoadMetrics {
  const { isLoading, totalBytes, failedBytes, hugeBytes, smallBytes, readCalls } = stats;
  const demand = Math.min(stats.demandBytes, stats.loadedBytes);
  const loadedBytes = { demand, background: stats.loadedBytes - demand };
  return {
    isLoading,
    totalBytes,
    loadedBytes,
    failedBytes,
    hugeBytes,
    smallBytes,
    readCalls,
    requests,
  };
}

function countThreads(words: Int32Array): number {
  let threads = 0;
  for (let slot = 0; slot < MAX_PARTICIPANTS; slot++)
    if (words[Word.Participants + slot * PARTICIPANT_WORDS] !== 0) threads++;
  return threads;
}
