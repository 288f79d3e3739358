/**
 * The findings of a bench run: every round's value of every figure, and the ratios of each round's
 * pairs.
 */
import { OURS, type Params, type Sample } from "../support/bench.ts";
import type { Machine, Noise } from "../support/machine.ts";
import { type Summary, summarize } from "../support/statistics.ts";

export interface ContenderResult {
  readonly hash: string | null;
  readonly figures: Readonly<Record<string, Summary>>;
}

export interface CaseResult {
  readonly subject: string;
  readonly title: string;
  readonly params: Params;
  readonly contenders: Readonly<Record<string, ContenderResult>>;
  /**
   * For each other contender and each common figure: how many times better pgalloc is, in each
   * round.
   */
  readonly ahead: Readonly<Record<string, Readonly<Record<string, Summary>>>>;
}

export interface Results {
  readonly format: 1;
  readonly startedAt: string;
  readonly durationSeconds: number;
  readonly machine: Machine;
  readonly noise: Noise;
  readonly rounds: number;
  readonly bytes: number;
  /** Peers that this machine does not have, with the reasons. */
  readonly absent: readonly string[];
  readonly cases: readonly CaseResult[];
}

/**
 * Times and rates are compared; counts and sizes are only shown. A duration beside its rate is not
 * compared again.
 */
// (A duration beside its rate is not compared again.)
const COST = /^(ns|cpuNs|firstNs)Per|(Ns|Ms|Seconds)$/;
const RATE = /PerSecond$/;

/** How many times better `ours` is, or undefined for a figure that is neither a time nor a rate. */
export function timesBetter(figure: string, ours: number, theirs: number): number | undefined {
  if (figure === "allLoadedSeconds" || figure === "nsPerPage") return undefined;
  if (RATE.test(figure)) return ours / theirs;
  return COST.test(figure) ? theirs / ours : undefined;
}

/**
 * Joins the rounds of a case. `samples[name][round]` is a contender's measurement in that round.
 *
 * @throws {Error} if contenders, or rounds of one, did different work or had different results
 */
export function makeCase(
  description: Pick<CaseResult, "subject" | "title" | "params">,
  samples: Readonly<Record<string, readonly Sample[]>>,
): CaseResult {
  const all = Object.values(samples).flat();
  requireEqual(description, "result", samples, ({ hash }) => hash);
  requireEqual(description, "trace", samples, ({ traceHash }) => traceHash ?? null);
  if (all.length === 0) throw new Error(`No samples of ${JSON.stringify(description)}`);
  const ours = samples[OURS]!;
  const contenders: Record<string, ContenderResult> = {};
  const ahead: Record<string, Record<string, Summary>> = {};
  for (const [name, rounds] of Object.entries(samples)) {
    const figures = Object.keys(rounds[0]!.figures);
    const valuesOf = (figure: string) => rounds.map((round) => round.figures[figure]!);
    contenders[name] = {
      hash: rounds.find(({ hash }) => hash !== null)?.hash ?? null,
      figures: Object.fromEntries(figures.map((figure) => [figure, summarize(valuesOf(figure))])),
    };
    if (name === OURS) continue;
    const pairs = figures.flatMap((figure) => {
      const ratios = ours.flatMap((own, round) => {
        const mine = own.figures[figure];
        return mine === undefined
          ? []
          : (timesBetter(figure, mine, rounds[round]!.figures[figure]!) ?? []);
      });
      return ratios.length === ours.length ? [[figure, summarize(ratios)] as const] : [];
    });
    ahead[name] = Object.fromEntries(pairs);
  }
  return { ...description, contenders, ahead };
}

function requireEqual(
  { subject, params }: Pick<CaseResult, "subject" | "params">,
  what: string,
  samples: Readonly<Record<string, readonly Sample[]>>,
  hashOf: (sample: Sample) => string | null,
): void {
  const found = new Map<string, string>();
  for (const [name, rounds] of Object.entries(samples)) {
    for (const sample of rounds) {
      const hash = hashOf(sample);
      if (hash !== null) found.set(hash, name);
    }
  }
  if (found.size > 1) {
    const list = [...found].map(([hash, name]) => `${name}: ${hash}`).join(", ");
    throw new Error(`Different ${what} in ${subject} ${JSON.stringify(params)}: ${list}`);
  }
}

/** The case of a subject whose parameters include `params`. */
export function findCase(
  results: Results,
  subject: string,
  params: Params,
): CaseResult | undefined {
  return results.cases.find(
    (one) =>
      one.subject === subject &&
      Object.entries(params).every(([name, value]) => one.params[name] === value),
  );
}
