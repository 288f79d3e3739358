/**
 * Metrics in Prometheus' text format, version 0.0.4: `# HELP`, `# TYPE`, then a line for each
 * value. Names follow its conventions: base units, counters end in `_total`. Source:
 * https://prometheus.io/docs/instrumenting/exposition_formats/
 */
import { showValue } from "../../ffi/index.ts";
import type { HistogramSnapshot } from "../control/counters.ts";
import { toList } from "../core/options.ts";
import type { FileMetrics } from "./metrics.ts";

/** An object with metrics: a MemoryFile. */
export interface MetricsSource {
  metrics(): FileMetrics;
}

type Labels = Readonly<Record<string, string>>;
type Sample = readonly [labels: Labels, value: number];

interface Family {
  readonly name: string;
  readonly type: "counter" | "gauge";
  readonly help: string;
  readonly samples: (file: FileMetrics) => readonly Sample[];
}

const FAMILIES: readonly Family[] = [
  {
    name: "pgalloc_memory_bytes",
    type: "gauge",
    help: "Bytes of the file by state.",
    samples: ({ memory }) => [
      [{ state: "used" }, memory.usedBytes],
      [{ state: "waste" }, memory.wasteBytes],
      [{ state: "free" }, memory.freeBytes],
    ],
  },
  {
    name: "pgalloc_committed_bytes",
    type: "gauge",
    help: "Memory or disk space that the kernel spends on the file.",
    samples: ({ memory }) => [[{ backing: memory.backing }, memory.committedBytes]],
  },
  {
    name: "pgalloc_mapped_bytes",
    type: "gauge",
    help: "Pages mapped from page files, and copies of those that were written.",
    samples: ({ memory }) => [[{}, memory.mappedBytes]],
  },
  {
    name: "pgalloc_allocations_total",
    type: "counter",
    help: "Allocations.",
    samples: ({ memory }) => [[{}, memory.allocations.count]],
  },
  {
    name: "pgalloc_allocated_bytes_total",
    type: "counter",
    help: "Bytes of all allocations so far.",
    samples: ({ memory }) => [[{}, memory.allocations.bytes]],
  },
  {
    name: "pgalloc_limit_bytes",
    type: "gauge",
    help: "The most bytes that may be in use.",
    samples: ({ memory }) => [[{}, memory.limitBytes]],
  },
  {
    name: "pgalloc_threads",
    type: "gauge",
    help: "Threads that use the file.",
    samples: ({ threads }) => [[{}, threads]],
  },
  {
    name: "pgalloc_loading",
    type: "gauge",
    help: "1 while a restore is under way.",
    samples: ({ load }) => [[{}, load.isLoading ? 1 : 0]],
  },
  {
    name: "pgalloc_load_size_bytes",
    type: "gauge",
    help: "Contents of the checkpoint that the file was restored from.",
    samples: ({ load }) => [[{}, load.totalBytes]],
  },
  {
    name: "pgalloc_loaded_bytes_total",
    type: "counter",
    help: "Contents loaded, by cause.",
    samples: ({ load }) => [
      [{ cause: "demand" }, load.loadedBytes.demand],
      [{ cause: "background" }, load.loadedBytes.background],
    ],
  },
  {
    name: "pgalloc_load_failed_bytes",
    type: "gauge",
    help: "Contents that could not be loaded.",
    samples: ({ load }) => [[{}, load.failedBytes]],
  },
  {
    name: "pgalloc_load_reads_total",
    type: "counter",
    help: "Reads made by a restore.",
    samples: ({ load }) => [[{}, load.readCalls]],
  },
  {
    name: "pgalloc_requests_total",
    type: "counter",
    help: "Requests for contents of a remote place, by kind.",
    samples: ({ load: { requests } }) =>
      requests === null
        ? []
        : [
            [{ kind: "all" }, requests.sent],
            [{ kind: "retry" }, requests.retries],
            [{ kind: "hedge" }, requests.hedges],
          ],
  },
  {
    name: "pgalloc_received_bytes_total",
    type: "counter",
    help: "Contents received from a remote place.",
    samples: ({ load: { requests } }) => (requests === null ? [] : [[{}, requests.receivedBytes]]),
  },
  {
    name: "pgalloc_refetched_bytes_total",
    type: "counter",
    help: "Contents that were read again because they were damaged on their way.",
    samples: ({ load: { requests } }) => (requests === null ? [] : [[{}, requests.refetchedBytes]]),
  },
  {
    name: "pgalloc_saves_failed_total",
    type: "counter",
    help: "Saves that failed.",
    samples: ({ saves }) => [[{}, saves.failed]],
  },
  {
    name: "pgalloc_saved_bytes_total",
    type: "counter",
    help: "Bytes that saves wrote, or found where an earlier save wrote them.",
    samples: ({ saves }) => [
      [{ part: "pages" }, saves.pagesBytes],
      [{ part: "manifest" }, saves.metaBytes],
      [{ part: "reused" }, saves.reusedBytes],
    ],
  },
  {
    name: "pgalloc_changed_pages_total",
    type: "counter",
    help: "Pages that were found to be written, once for each time that a save looked.",
    samples: ({ changes }) => [[{}, changes.reportedPages]],
  },
  {
    name: "pgalloc_changed_huge_pages_total",
    type: "counter",
    help: "Huge pages that were split to find single written pages, and made huge again.",
    samples: ({ changes }) => [
      [{ change: "split" }, changes.splitUnits],
      [{ change: "joined" }, changes.joinedUnits],
    ],
  },
  {
    name: "pgalloc_errors_total",
    type: "counter",
    help: "Failed saves, loads and waits by error code.",
    samples: ({ errors }) => Object.entries(errors).map(([code, value]) => [{ code }, value]),
  },
];

interface HistogramFamily {
  readonly name: string;
  readonly help: string;
  readonly series: (file: FileMetrics) => readonly (readonly [Labels, HistogramSnapshot])[];
}

const HISTOGRAMS: readonly HistogramFamily[] = [
  {
    name: "pgalloc_await_seconds",
    help: "How long waits for pages took, by what they waited for.",
    series: ({ awaits }) => Object.entries(awaits).map(([cause, waits]) => [{ cause }, waits]),
  },
  {
    name: "pgalloc_save_seconds",
    help: "How long saves took.",
    series: ({ saves }) => [[{}, saves.durations]],
  },
  {
    name: "pgalloc_save_pause_seconds",
    help: "How long consistent saves stopped the program.",
    series: ({ saves }) => [[{}, saves.pauses]],
  },
];

/**
 * The metrics of one file, or of several, as text for a Prometheus server. @throws {TypeError}
 */
export function prometheus(files: MetricsSource | Iterable<MetricsSource>): string {
  const list = toList(files);
  for (const file of list) {
    if (typeof (file as Partial<MetricsSource> | null)?.metrics !== "function")
      throw new TypeError(`Expected MemoryFiles or stores, got ${showValue(file)}`);
  }
  const named = nameApart(list.map((file) => file.metrics()));
  const lines: string[] = [];
  for (const { name, type, help, samples } of FAMILIES) {
    const values = named.flatMap(({ label, metrics }) =>
      samples(metrics).map(([labels, value]) => line(name, { file: label, ...labels }, value)),
    );
    if (values.length > 0)
      lines.push(`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`, ...values);
  }
  for (const { name, help, series } of HISTOGRAMS) {
    lines.push(`# HELP ${name} ${help}`, `# TYPE ${name} histogram`);
    for (const { label, metrics } of named)
      for (const [labels, histogram] of series(metrics))
        lines.push(...histogramLines(name, { file: label, ...labels }, histogram));
  }
  return `${lines.join("\n")}\n`;
}

/** Several files may have the same name, but series may not. */
function nameApart(files: readonly FileMetrics[]): { label: string; metrics: FileMetrics }[] {
  const uses = new Map<string, number>();
  return files.map((metrics) => {
    const use = (uses.get(metrics.name) ?? 0) + 1;
    uses.set(metrics.name, use);
    return { label: use === 1 ? metrics.name : `${metrics.name}#${use}`, metrics };
  });
}

function histogramLines(name: string, labels: Labels, histogram: HistogramSnapshot): string[] {
  let below = 0;
  const buckets = histogram.buckets.map(({ atMostMs, count }) => {
    below += count;
    const le = atMostMs === Number.POSITIVE_INFINITY ? "+Inf" : String(atMostMs / 1000);
    return line(`${name}_bucket`, { ...labels, le }, below);
  });
  return [
    ...buckets,
    line(`${name}_sum`, labels, histogram.sumMs / 1000),
    line(`${name}_count`, labels, below),
  ];
}

function line(name: string, labels: Labels, value: number): string {
  const pairs = Object.entries(labels).map(([key, text]) => `${key}="${escapeLabel(text)}"`);
  return `${name}{${pairs.join(",")}} ${value}`;
}

function escapeLabel(text: string): string {
  return text.replace(/\\/g, "\\\\").replace(/"/g, '\\"').replace(/\n/g, "\\n");
}
