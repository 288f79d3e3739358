/** Errors of eviction: memory pressure that cannot be watched, and users that throw. */

/**
 * The machine does not report memory pressure: it has no pressure stall information, or the process
 * may not read it. Create the file with `delayedEviction: "manual"`.
 */
export class PressureUnavailableError extends Error {
  override readonly name = "PressureUnavailableError";
  readonly code = "ERR_PRESSURE_UNAVAILABLE";
  /** The error of each file that was tried. */
  readonly errors: readonly Error[];

  constructor(errors: readonly Error[]) {
    super(`Cannot watch memory pressure: ${errors.map(({ message }) => message).join("; ")}`, {
      cause: errors[0],
    });
    this.errors = errors;
  }
}

/** A user's `evict` threw. Its range is not evictable any more. Mark it again to try again. */
export interface EvictionFailure {
  readonly user: object;
  readonly range: { readonly start: number; readonly end: number };
  readonly error: unknown;
}

/** One or more users threw from `evict`. All other ranges were evicted. */
export class EvictionError extends Error {
  override readonly name = "EvictionError";
  readonly code = "ERR_EVICTION";
  /** The first 100 failures at most. */
  readonly failures: readonly EvictionFailure[];
  readonly failureCount: number;

  constructor(failures: readonly EvictionFailure[], failureCount: number) {
    const [{ range, error }] = failures as [EvictionFailure];
    const reason = error instanceof Error ? error.message : String(error);
    const more = failureCount === 1 ? "" : `, and ${failureCount - 1} more`;
    super(`Eviction of [${range.start}, ${range.end}) failed: ${reason}${more}`, { cause: error });
    this.failures = failures;
    this.failureCount = failureCount;
  }
}
