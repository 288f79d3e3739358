/**
 * Decides when a failed request is repeated: after a delay that grows and is drawn at random,
 * within a time, and within a budget that all requests of a client share. Without the budget,
 * clients of a failing server would send it several times the load.
 *
 * Sources: "Exponential Backoff And Jitter" (AWS Architecture Blog); gRPC's retry throttling.
 */
import { RemoteError } from "../errors/remote-errors.ts";

export interface RetryPolicy {
  readonly attemptsMax: number;
  /** No attempt begins later than this after the first. */
  readonly timeMs: number;
  readonly delayMs: number;
  readonly delayMsMax: number;
}

export const RETRY_POLICY: RetryPolicy = {
  attemptsMax: 8,
  timeMs: 60_000,
  delayMs: 50,
  delayMsMax: 5_000,
};

/** Retries in a row that the budget allows, and how much each successful request adds to it. */
const BUDGET_MAX = 64;
const BUDGET_PER_SUCCESS = 0.2;
const RETRY_AFTER_MS_MAX = 30_000;

export class RetryBudget {
  private tokens = BUDGET_MAX;

  succeeded(): void {
    this.tokens = Math.min(BUDGET_MAX, this.tokens + BUDGET_PER_SUCCESS);
  }

  /** True if a retry may be made; it is then counted. */
  take(): boolean {
    if (this.tokens < 1) return false;
    this.tokens--;
    return true;
  }
}

/** S3's codes of temporary errors. */
const TRANSIENT_S3_CODES: readonly string[] = [
  "SlowDown",
  "InternalError",
  "RequestTimeout",
  "RequestTimeTooSkewed",
  "ExpiredToken",
  "OperationAborted",
  "ConditionalRequestConflict",
];

/** True if the same request may succeed later. */
export function isTransient(error: unknown): boolean {
  if (!(error instanceof RemoteError)) return false;
  if (error.s3Code !== undefined && TRANSIENT_S3_CODES.includes(error.s3Code)) return true;
  switch (error.failure) {
    case "busy":
    case "unreachable":
    case "stalled":
    case "truncated":
    case "short":
    case "long":
    case "wrong range":
    case "malformed":
      return !isCertificateError(error);
    default:
      return false;
  }
}

function isCertificateError({ message }: RemoteError): boolean {
  return /CERT|SELF_SIGNED|UNABLE_TO_VERIFY|ALTNAME/.test(message);
}

/** Milliseconds in a Retry-After header; undefined without a usable one. */
export function retryAfterMs(headers: Headers, nowMs = Date.now()): number | undefined {
  const text = headers.get("retry-after");
  if (text === null) return undefined;
  const waitMs = /^\d{1,9}$/.test(text) ? Number(text) * 1000 : Date.parse(text) - nowMs;
  return Number.isNaN(waitMs) ? undefined : Math.min(Math.max(waitMs, 0), RETRY_AFTER_MS_MAX);
}

/** The delay before attempt `attempt` (2, 3, …): at random up to a bound that doubles. */
export function backoffMs(policy: RetryPolicy, attempt: number, random = Math.random): number {
  const bound = Math.min(policy.delayMsMax, policy.delayMs * 2 ** (attempt - 2));
  return bound * (0.5 + random() / 2);
}
