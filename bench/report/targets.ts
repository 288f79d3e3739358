/**
 * The project's goals, line by line, and whether a run reached them. A goal is a factor ahead of
 * gVisor on the same machine in the same run, or a time.
 */
import { FIO_RUNS, FIO_WRITE } from "../peers/fio.ts";
import { CALLS_ALONE } from "../support/bare-load.ts";
import { OURS, type Params } from "../support/bench.ts";
import { type Summary, summarize } from "../support/statistics.ts";
import { type CaseResult, findCase, type Results } from "./results.ts";

export const GVISOR = "gvisor";

/**
 * `timesBetter`: than gVisor, by the median of the pairs. `atMost`: in the figure's own unit.
 * `null`: shown, without a goal.
 */
type Goal = { readonly timesBetter: number } | { readonly atMost: number } | null;

export interface TargetLine {
  readonly work: string;
  readonly figure: string;
  readonly goal: Goal;
  readonly ours: Summary;
  /** Undefined if the peer is absent or has no such figure. */
  readonly peer: Summary | undefined;
  readonly ahead: Summary | undefined;
  /** The goal's factor ahead of the peer, for the chart's mark. */
  readonly neededAhead: number | undefined;
  /** Null without a goal, or without the peer that it is measured against. */
  readonly isMet: boolean | null;
}

export function targetLines(results: Results): TargetLine[] {
  return [...microLines(results), ...saveLines(results), ...loadLines(results)];
}

function microLines(results: Results): TargetLine[] {
  const live = [100, 10_000, 100_000];
  const lines = [
    ...live.flatMap((count) => {
      const goal = count === 10_000 ? { timesBetter: 4 } : null;
      const work = `free + allocate pair, ${count.toLocaleString("en")} live`;
      return [
        line(results, work, "allocate", { live: count }, "nsPerPair", goal),
        line(
          results,
          `${work}, released too`,
          "allocate",
          { live: count },
          "nsPerPairSettled",
          goal,
        ),
      ];
    }),
    growthLine(results),
    ...["mixed", "plain"].flatMap((shape) =>
      live.map((count) =>
        line(
          results,
          `incRef + decRef pair, ${count.toLocaleString("en")} live, ${shape}`,
          "references",
          { live: count, shape },
          "nsPerPair",
          { timesBetter: 2 },
        ),
      ),
    ),
    ...[1, 64].flatMap((gib) => {
      const goal = gib === 64 ? { timesBetter: 1 } : null;
      const work = `allocate + decRef of ${gib} GiB`;
      return [
        line(results, work, "big", { bytes: gib * 2 ** 30 }, "nsPerPair", goal),
        line(
          results,
          `${work}, released too`,
          "big",
          { bytes: gib * 2 ** 30 },
          "nsPerPairSettled",
          goal,
        ),
      ];
    }),
    ...live.flatMap((count) => {
      const work = `view of a range, ${count.toLocaleString("en")} live`;
      return [
        line(results, work, "view", { live: count }, "nsPerView", { atMost: 100 }),
        line(
          results,
          `${work}, pages discarded since`,
          "view",
          { live: count },
          "nsPerViewAfterDiscard",
          null,
        ),
      ];
    }),
  ];
  return lines.flatMap((one) => one ?? []);
}

/** The cost of a pair at 100,000 live ranges over the cost at 100, in the same round. */
function growthLine(results: Results): TargetLine | undefined {
  const few = findCase(results, "allocate", { live: 100 });
  const many = findCase(results, "allocate", { live: 100_000 });
  if (few === undefined || many === undefined) return undefined;
  const growth = (name: string) => {
    const small = few.contenders[name]?.figures["nsPerPair"];
    const large = many.contenders[name]?.figures["nsPerPair"];
    if (small === undefined || large === undefined) return undefined;
    return summarize(large.rounds.map((ns, round) => ns / small.rounds[round]!));
  };
  return judged(
    "free + allocate pair, cost at 100,000 live over 100",
    "times",
    growth(OURS)!,
    growth(GVISOR),
    { atMost: 2.5 },
  );
}

function saveLines(results: Results): TargetLine[] {
  return ["dense", "fragmented"].flatMap((pattern) => {
    const params = { pattern, bytes: results.bytes };
    const goal = { timesBetter: pattern === "dense" ? 2 : 4 };
    return [
      line(results, `save, ${pattern}, both synced`, "save", params, "saveAndSyncSeconds", goal) ??
        [],
      line(
        results,
        `save, ${pattern}, ours synced, gVisor's not`,
        "save",
        params,
        "saveSeconds",
        null,
      ) ?? [],
      line(
        results,
        `save, ${pattern}, against ${FIO_WRITE}, synced`,
        "save",
        params,
        "saveAndSyncSeconds",
        null,
        FIO_WRITE,
      ) ?? [],
    ].flat();
  });
}

function loadLines(results: Results): TargetLine[] {
  const lines = ["dense", "fragmented"].flatMap((pattern) =>
    ["hot", "cold"].flatMap((cache) => {
      const where = `${pattern}, cache ${cache}`;
      const params = { pattern, cache, bytes: results.bytes, queue: "auto" };
      const awaiting = { ...params, awaits: 200 };
      const undisturbed = { ...params, awaits: 0 };
      const isDense = pattern === "dense";
      const rate = { timesBetter: !isDense ? 1.5 : cache === "hot" ? 4 : 1.3 };
      return [
        line(results, `loadFrom returns, ${where}`, "load", undisturbed, "loadFromReturnsSeconds", {
          atMost: isDense ? 0.01 : 0.02,
        }),
        line(results, `first awaited page, ${where}`, "load", awaiting, "firstPageSeconds", {
          atMost: isDense ? 0.015 : 0.025,
        }),
        line(results, `awaited random page, p50, ${where}`, "load", awaiting, "awaitP50Ns", null),
        line(results, `awaited random page, p99, ${where}`, "load", awaiting, "awaitP99Ns", {
          atMost: 3e6,
        }),
        line(results, `all loaded, ${where}`, "load", undisturbed, "gibPerSecond", rate),
        line(
          results,
          `all loaded while awaiting, ${where}`,
          "load",
          awaiting,
          "gibPerSecond",
          null,
        ),
        line(
          results,
          `main thread's event loop, p99 of its gaps, ${where}`,
          "load",
          awaiting,
          "loopGapP99Ms",
          { atMost: 5 },
        ),
        line(
          results,
          `main thread's event loop, longest gap, ${where}`,
          "load",
          awaiting,
          "loopGapMaxMs",
          null,
        ),
        isDense && cache === "hot"
          ? line(
              results,
              `all loaded, ${where}, against the ${CALLS_ALONE}`,
              "load",
              undisturbed,
              "gibPerSecond",
              null,
              CALLS_ALONE,
            )
          : undefined,
        isDense && cache === "cold" ? fioLine(results, undisturbed) : undefined,
      ];
    }),
  );
  return lines.flatMap((one) => one ?? []);
}

/** Compared with the best that fio reads from the disk. */
function fioLine(results: Results, params: Params): TargetLine | undefined {
  const found = findCase(results, "load", params);
  const rates = Object.keys(FIO_RUNS).flatMap((name) => {
    const peer = found?.contenders[name]?.figures["gibPerSecond"];
    return peer === undefined ? [] : [{ name, peer }];
  });
  if (found === undefined || rates.length === 0) return undefined;
  const best = rates.reduce((a, b) => (b.peer.median > a.peer.median ? b : a));
  const ahead = found.ahead[best.name]!["gibPerSecond"]!;
  return {
    work: `all loaded, dense, cache cold, against ${best.name} direct`,
    figure: "gibPerSecond",
    goal: { timesBetter: 0.9 },
    ours: found.contenders[OURS]!.figures["gibPerSecond"]!,
    peer: best.peer,
    ahead,
    neededAhead: 0.9,
    isMet: ahead.median >= 0.9,
  };
}

function line(
  results: Results,
  work: string,
  subject: string,
  params: Params,
  figure: string,
  goal: Goal,
  by = GVISOR,
): TargetLine | undefined {
  const found: CaseResult | undefined = findCase(results, subject, params);
  const ours = found?.contenders[OURS]?.figures[figure];
  if (found === undefined || ours === undefined) return undefined;
  return judged(
    work,
    figure,
    ours,
    found.contenders[by]?.figures[figure],
    goal,
    found.ahead[by]?.[figure],
  );
}

function judged(
  work: string,
  figure: string,
  ours: Summary,
  peer: Summary | undefined,
  goal: Goal,
  ahead?: Summary,
): TargetLine {
  const base = { work, figure, goal, ours, peer, ahead };
  if (goal === null) return { ...base, neededAhead: undefined, isMet: null };
  if ("atMost" in goal) {
    const neededAhead =
      ahead === undefined || peer === undefined ? undefined : peer.median / goal.atMost;
    return { ...base, neededAhead, isMet: ours.median <= goal.atMost };
  }
  return {
    ...base,
    neededAhead: goal.timesBetter,
    isMet: ahead === undefined ? null : ahead.median >= goal.timesBetter,
  };
}
