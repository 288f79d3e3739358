/** Renders a run as Markdown: the goals, growth, our losses, and every case. */
import { OURS } from "../support/bench.ts";
import { growthExponent, type Summary } from "../support/statistics.ts";
import { formatBytes } from "../../src/cli/bytes.ts";
import { digits, formatFigure, formatParams } from "./format.ts";
import type { CaseResult, Results } from "./results.ts";
import { type TargetLine, targetLines } from "./targets.ts";

export function formatResults(results: Results): string {
  return [
    header(results),
    goals(results),
    starts(results),
    queues(results),
    growth(results),
    losses(results),
    everyCase(results),
  ].join("\n");
}

function header({
  machine,
  noise,
  rounds,
  bytes,
  startedAt,
  durationSeconds,
  absent,
}: Results): string {
  const {
    cpu,
    cores,
    memoryBytes,
    kernel,
    arch,
    bun,
    pageBytes,
    shmemEnabled,
    transparentHugepages,
    peers,
  } = machine;
  const wasNoisy =
    noise.computeSpread > 1.5 ||
    noise.copySpread > 2 ||
    noise.sharedCoreShare > 0.2 ||
    noise.loadAverageBefore > cores / 2 ||
    noise.stolenSeconds > durationSeconds / 50;
  return [
    "# Bench results",
    "",
    `${startedAt}, ${Math.round(durationSeconds)} s; medians of ${rounds} round(s), images of ` +
      `${formatBytes(bytes)}.`,
    `${cpu}, ${cores} cores, ${formatBytes(memoryBytes)}; Linux ${kernel} ${arch}, pages of ` +
      `${formatBytes(pageBytes)}, shmem_enabled=${shmemEnabled}, ` +
      `transparent_hugepage=${transparentHugepages}; Bun ` +
      `${bun}${peers.map((peer) => `; ${peer}`).join("")}.`,
    `The machine was ${wasNoisy ? "**noisy**" : "quiet"}: of ${noise.probes} probes of fixed ` +
      `work between the measurements the slowest took ${digits(noise.computeSpread)}× (compute) ` +
      `and ${digits(noise.copySpread)}× (copy) the median, and in ` +
      `${Math.round(100 * noise.sharedCoreShare)} % something else used the core as well; load ` +
      `average before: ${digits(noise.loadAverageBefore)}; time stolen by the host: ` +
      `${digits(noise.stolenSeconds)} s.`,
    ...absent.map((reason) => `Absent – ${reason}.`),
    "",
  ].join("\n");
}

/** median (min..max) */
function spread(figure: string, { median, min, max }: Summary): string {
  return (
    `${formatFigure(figure, median)} (${formatFigure(figure, min)} .. ` +
    `${formatFigure(figure, max)})`
  );
}

function goals(results: Results): string {
  const lines = targetLines(results);
  if (lines.length === 0) return "";
  return [
    "## Goals",
    "",
    "`ahead`: how many times better ours is, median of the pairs of each round (smallest .. " +
      "largest). Ours loads as it is deployed, in an executable with bytecode (docs/deploying.md).",
    "",
    "| work | goal | ours | peer | ahead | met |",
    "| --- | --- | --- | --- | --- | --- |",
    ...lines.map(
      (one) =>
        `| ${one.work} | ${formatGoal(one)} | ${spread(one.figure, one.ours)} | ` +
        `${one.peer === undefined ? "–" : spread(one.figure, one.peer)} | ` +
        `${one.ahead === undefined ? "–" : spread("times", one.ahead)} | ` +
        `${one.isMet === null ? "–" : one.isMet ? "yes" : "**no**"} |`,
    ),
    "",
  ].join("\n");
}

function formatGoal({ goal, figure }: TargetLine): string {
  if (goal === null) return "–";
  return "atMost" in goal
    ? `≤ ${formatFigure(figure, goal.atMost)}`
    : `≥ ${digits(goal.timesBetter)}×`;
}

function starts(results: Results): string {
  const cases = results.cases.filter(({ subject }) => subject === "start");
  if (cases.length === 0) return "";
  const figures = ["startToFirstPageSeconds", "loadFromReturnsSeconds", "firstPageSeconds"];
  return [
    "## Starts",
    "",
    "A program of its own process, page cache hot: as it is deployed (an executable with " +
      "bytecode, as all loads here), and from sources.",
    "",
    `| image | program | ${figures.join(" | ")} |`,
    `| --- | --- |${" --- |".repeat(figures.length)}`,
    ...cases.flatMap(({ params, contenders }) =>
      Object.entries(contenders).map(([name, found]) => {
        const cells = figures.map((figure) => spread(figure, found.figures[figure]!));
        return (
          `| ${params["pattern"]} | ${name === OURS ? "as deployed" : name} | ` +
          `${cells.join(" | ")} |`
        );
      }),
    ),
    "",
  ].join("\n");
}

/** Figures of a load that distinguish queues. */
const QUEUE_FIGURES = [
  ...[
    "gibPerSecond",
    "firstPageSeconds",
    "awaitP50Ns",
    "awaitP99Ns",
    "loopGapP99Ms",
    "loopGapMaxMs",
    "cpuSeconds",
  ],
  ...["hugeBytes", "smallBytes", "readCalls"],
];

function queues(results: Results): string {
  const rows = results.cases
    .filter(({ subject, params }) => subject === "load" && Number(params["awaits"]) > 0)
    .flatMap(({ params, contenders }) =>
      Object.entries(contenders).map(([name, { figures }]) => {
        const cells = QUEUE_FIGURES.map((figure) => {
          const summary = figures[figure];
          return summary === undefined ? "–" : formatFigure(figure, summary.median);
        });
        const queue = name === OURS ? String(params["queue"]) : name;
        return `| ${params["pattern"]}, ${params["cache"]} | ${queue} | ${cells.join(" | ")} |`;
      }),
    );
  if (rows.length === 0) return "";
  return [
    "## Queues",
    "",
    "Loading while random pages are awaited; medians.",
    "",
    `| image, cache | queue | ${QUEUE_FIGURES.join(" | ")} |`,
    `| --- | --- |${" --- |".repeat(QUEUE_FIGURES.length)}`,
    ...rows,
    "",
  ].join("\n");
}

/** The growth of costs: [subject, figure, parameter], over cases that differ in nothing else. */
const GROWTH: readonly (readonly [subject: string, figure: string, parameter: string])[] = [
  ["allocate", "nsPerPair", "live"],
  ["references", "nsPerPair", "live"],
  ["view", "nsPerView", "live"],
  ["big", "nsPerPair", "bytes"],
  ["segment", "nsPerOperation", "runs"],
  ["zero-scan", "nsPerPage", "bytes"],
  ["coalesce", "nsPerPiece", "pieces"],
  ["changes", "takeSeconds", "bytes"],
  ["instant", "saveSeconds", "bytes"],
  ["instant", "busyPauseSeconds", "bytes"],
  ["instant", "saveSeconds", "changed"],
  ["save", "saveAndSyncSeconds", "bytes"],
  ["load", "loadFromReturnsSeconds", "bytes"],
  ["load", "allLoadedSeconds", "bytes"],
];

function growth(results: Results): string {
  const rows = GROWTH.flatMap(([subject, figure, parameter]) =>
    series(results, subject, parameter).flatMap(({ label, cases }) =>
      Object.keys(cases[0]!.contenders).flatMap((name) => {
        const costs = cases.flatMap((one) => one.contenders[name]?.figures[figure]?.median ?? []);
        if (costs.length < 2 || costs.length < cases.length) return [];
        const sizes = cases.map(({ params }) => params[parameter] as number);
        const shownSizes = sizes.map((size) =>
          parameter === "bytes" ? formatBytes(size) : size.toLocaleString("en"),
        );
        return (
          `| ${label}, ${figure} | ${parameter} ${shownSizes.join(" / ")} | ${name} | ` +
          `${costs.map((cost) => formatFigure(figure, cost)).join(" / ")} | ` +
          `${digits(growthExponent(sizes, costs))} |`
        );
      }),
    ),
  );
  if (rows.length === 0) return "";
  return [
    "## Growth",
    "",
    "The exponent is that of cost = c × size^exponent: 0 does not grow, 1 grows with the size. A " +
      "fragmented image has an extent for every four pages, so its bytes are its extents.",
    "",
    "| work | against | by | cost | exponent |",
    "| --- | --- | --- | --- | --- |",
    ...rows,
    "",
  ].join("\n");
}

/** Cases of a subject, grouped by all parameters except one that takes several values. */
function series(
  results: Results,
  subject: string,
  parameter: string,
): { label: string; cases: CaseResult[] }[] {
  const groups = new Map<string, CaseResult[]>();
  for (const one of results.cases) {
    if (one.subject !== subject || one.params[parameter] === undefined) continue;
    const { [parameter]: _, ...others } = one.params;
    const label = [subject, formatParams(others)].filter((part) => part !== "").join(", ");
    groups.set(label, [...(groups.get(label) ?? []), one]);
  }
  return [...groups].flatMap(([label, cases]) => (cases.length < 2 ? [] : [{ label, cases }]));
}

function losses(results: Results): string {
  const rows = results.cases.flatMap((one) =>
    Object.entries(one.ahead).flatMap(([name, figures]) => {
      const parts = Object.entries(figures).flatMap(([figure, ahead]) => {
        if (!(ahead.median < 1)) return [];
        const ours = formatFigure(figure, one.contenders[OURS]!.figures[figure]!.median);
        const theirs = formatFigure(figure, one.contenders[name]!.figures[figure]!.median);
        return `${figure} ${ours} against ${theirs}, ${spread("times", ahead)}`;
      });
      return parts.length === 0
        ? []
        : `| ${one.subject}, ${formatParams(one.params)} | ${name} | ${parts.join("; ")} |`;
    }),
  );
  if (rows.length === 0) return "## Where others are ahead\n\nNowhere in this run.\n";
  return [
    "## Where others are ahead",
    "",
    "| case | who | ours against theirs, times ahead |",
    "| --- | --- | --- |",
    ...rows,
    "",
  ].join("\n");
}

function everyCase(results: Results): string {
  const rows = results.cases.flatMap((one) =>
    Object.entries(one.contenders).map(([name, { figures, hash }]) => {
      const list = Object.entries(figures).map(
        ([figure, summary]) => `${figure} ${spread(figure, summary)}`,
      );
      return (
        `| ${one.subject}, ${formatParams(one.params)} | ${name} | ${list.join("; ")} | ` +
        `${hash === null ? "" : `\`${hash}\``} |`
      );
    }),
  );
  return [
    "## Every case",
    "",
    "Median (smallest .. largest) of the rounds; the hash of the result is the same for all that " +
      "have one.",
    "",
    "| case | by | figures | hash |",
    "| --- | --- | --- | --- |",
    ...rows,
    "",
  ].join("\n");
}
