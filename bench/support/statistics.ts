/**
 * Medians, nearest-rank percentiles, and how far samples lie apart: the same definitions as the
 * peers'.
 */

function sorted(values: readonly number[]): number[] {
  return [...values].sort((a, b) => a - b);
}

/** The middle value, or the mean of the two middle ones; NaN for none. */
export function median(values: readonly number[]): number {
  const order = sorted(values);
  const middle = order.length >> 1;
  if (order.length % 2 === 1) return order[middle]!;
  return (order[middle - 1]! + order[middle]!) / 2;
}

/**
 * The smallest value that at least the fraction `p` of all values does not exceed; NaN for none.
 */
export function percentile(values: readonly number[], p: number): number {
  return sorted(values)[Math.max(Math.ceil(p * values.length), 1) - 1] ?? Number.NaN;
}

export interface Summary {
  readonly median: number;
  readonly min: number;
  readonly max: number;
  /** Every round's value, in order. */
  readonly rounds: readonly number[];
}

export function summarize(rounds: readonly number[]): Summary {
  return { median: median(rounds), min: Math.min(...rounds), max: Math.max(...rounds), rounds };
}

/**
 * The exponent e of cost = c × size^e through the first and the last point: 0 is constant, 1
 * linear.
 */
export function growthExponent(sizes: readonly number[], costs: readonly number[]): number {
  return Math.log(costs.at(-1)! / costs[0]!) / Math.log(sizes.at(-1)! / sizes[0]!);
}
