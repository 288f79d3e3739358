/** The words that the stress test shares with its Workers. */
export const StressWord = { Over: 0, Writes: 1, Stops: 2, Broken: 3, Timeouts: 4 } as const;
