/**
 * Hedging: if an answer is later than nearly all before it, the same request is sent again, and the
 * first answer counts. At most HEDGED_MAX of all requests are sent twice.
 *
 * Source: Dean and Barroso, "The Tail at Scale" (2013).
 */
import type { Client } from "./client.ts";
import { Counter } from "./counters.ts";

const HEDGED_MAX = 0.05;
const SAMPLES = 64;
/** Fewer samples do not show the tail. */
const SAMPLES_MIN = 8;
const HEDGE_AT = 0.9;
const WAIT_MS_MIN = 5;

export class Hedging {
  private readonly client: Client;
  private readonly samplesMs = new Float64Array(SAMPLES);
  private count = 0;

  constructor(client: Client) {
    this.client = client;
  }

  /** Runs `request`, and once more if it is late and the cap allows it. Both get a signal. */
  async run<Result>(
    request: (signal: AbortSignal) => Promise<Result>,
    signal?: AbortSignal,
  ): Promise<Result> {
    const beganMs = performance.now();
    const [first, second] = [new AbortController(), new AbortController()];
    const onAbort = () => {
      first.abort(signal?.reason);
      second.abort(signal?.reason);
    };
    if (signal?.aborted) onAbort();
    signal?.addEventListener("abort", onAbort, { once: true });
    const { promise: isLate, resolve } = Promise.withResolvers<boolean>();
    const timer = setTimeout(() => resolve(true), this.waitMs());
    try {
      const one = request(first.signal);
      const ended = one.then(
        () => false,
        () => false,
      );
      const hedges = (await Promise.race([ended, isLate])) && this.mayHedge();
      const result = await (hedges ? firstOf(one, request(second.signal)) : one);
      this.add(performance.now() - beganMs);
      return result;
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", onAbort);
      const reason = new Error("The answer to the same request came first");
      first.abort(reason);
      second.abort(reason);
    }
  }

  private mayHedge(): boolean {
    const { counters } = this.client;
    if (counters[Counter.Hedges]! + 1 > HEDGED_MAX * counters[Counter.Requests]!) return false;
    counters[Counter.Hedges]!++;
    return true;
  }

  private add(elapsedMs: number): void {
    this.samplesMs[this.count++ % SAMPLES] = elapsedMs;
  }

  /** How late an answer must be for a second request. */
  private waitMs(): number {
    if (this.count < SAMPLES_MIN) return 2 ** 31 - 1;
    const known = this.samplesMs.slice(0, Math.min(this.count, SAMPLES)).sort();
    return Math.max(WAIT_MS_MIN, 1.5 * known[Math.floor(known.length * HEDGE_AT)]!);
  }
}

/** The first result; the first error if both fail. */
async function firstOf<Result>(one: Promise<Result>, other: Promise<Result>): Promise<Result> {
  try {
    return await Promise.any([one, other]);
  } catch (error) {
    throw error instanceof AggregateError ? error.errors[0] : error;
  }
}
