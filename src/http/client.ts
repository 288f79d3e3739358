/**
 * Client: sends requests to one place, signed or not, and repeats those that failed temporarily.
 * Each thread has a client of its own; counters are shared.
 *
 * Every request has a connection of its own while it is under way (HTTP/1.1), so a request that a
 * program waits for never queues behind others here.
 */
import { RemoteError } from "../errors/remote-errors.ts";
import { type Answer, PATIENCE, type Patience } from "./answer.ts";
import { type CounterHandle, Counter, openCounters } from "./counters.ts";
import { exchange, type Request } from "./exchange.ts";
import { backoffMs, isTransient, RETRY_POLICY, RetryBudget, retryAfterMs } from "./retry.ts";
import type { RetryPolicy } from "./retry.ts";
import type { Signer } from "./sign.ts";
import { textOf } from "./xml.ts";

export interface ClientOptions {
  /** Undefined: requests are not signed. */
  readonly signer?: Signer | undefined;
  readonly counters?: CounterHandle | undefined;
  readonly retry?: Partial<RetryPolicy> | undefined;
  readonly patience?: Partial<Patience> | undefined;
  /** Ends every request of the client. */
  readonly signal?: AbortSignal | undefined;
}

export interface SendOptions {
  /** Ends this request. */
  readonly signal?: AbortSignal | undefined;
  /** Called with the error of each failed attempt, before the next one. */
  readonly onRetry?: ((error: RemoteError) => void) | undefined;
  /** 1: no retry. */
  readonly attemptsMax?: number;
}

/** Facts about a failed attempt beside its error. */
const waits = new WeakMap<RemoteError, number>();

export class Client {
  readonly counters: Float64Array;
  private readonly signer: Signer | undefined;
  private readonly policy: RetryPolicy;
  private readonly patience: Patience;
  private readonly budget = new RetryBudget();
  private readonly signal: AbortSignal | undefined;

  constructor(options: ClientOptions = {}) {
    this.signer = options.signer;
    this.counters = openCounters(options.counters);
    this.policy = { ...RETRY_POLICY, ...options.retry };
    this.patience = { ...PATIENCE, ...options.patience };
    this.signal = options.signal;
  }

  /**
   * Sends the request until an answer is consumed. `consume` may run several times, each time from
   * the start.
   * @throws {RemoteError}
   * @throws the signal's reason
   */
  async send<Result>(
    request: Request,
    consume: (answer: Answer) => Promise<Result>,
    options: SendOptions = {},
  ): Promise<Result> {
    const { policy, budget, counters } = this;
    const attemptsMax = options.attemptsMax ?? policy.attemptsMax;
    const beganMs = performance.now();
    const signal = anySignal(this.signal, options.signal);
    try {
      for (let attempt = 1; ; attempt++) {
        try {
          const result = await this.attempt(request, consume, signal.signal);
          budget.succeeded();
          return result;
        } catch (error) {
          if (!(error instanceof RemoteError) || !isTransient(error)) throw error;
          const delayMs = waits.get(error) ?? backoffMs(policy, attempt + 1);
          const isInTime = performance.now() + delayMs - beganMs <= policy.timeMs;
          if (attempt >= attemptsMax || !isInTime || !budget.take()) throw error;
          counters[Counter.Retries]!++;
          options.onRetry?.(error);
          await sleep(delayMs, signal.signal);
        }
      }
    } finally {
      signal.release();
    }
  }

  private attempt<Result>(
    request: Request,
    consume: (answer: Answer) => Promise<Result>,
    signal: AbortSignal | undefined,
  ): Promise<Result> {
    this.counters[Counter.Requests]!++;
    const options = { signer: this.signer, patience: this.patience, signal };
    return exchange(request, options, async (answer) => {
      if (isFailure(answer.status)) throw await failureOf(answer, request.method);
      return consume(answer);
    });
  }
}

function isFailure(status: number): boolean {
  return status < 200 || status >= 300;
}

const ERROR_BYTES_MAX = 2 ** 16;

/** The error of an answer that is not a success. */
async function failureOf(answer: Answer, method: string): Promise<RemoteError> {
  const { status } = answer;
  const text = await answer.text(ERROR_BYTES_MAX);
  const s3Code = textOf(text, "Code");
  const region = answer.headers.get("x-amz-bucket-region") ?? textOf(text, "Region");
  const what = `${method} was answered with ${status}${s3Code === undefined ? "" : ` ${s3Code}`}`;
  const isElsewhere = status === 301 || s3Code === "AuthorizationHeaderMalformed";
  const hint = isElsewhere && region !== undefined ? `; the bucket is in region ${region}` : "";
  const more = s3Code === undefined ? {} : { s3Code };
  const error = answer.error(failureName(status), what + hint, more);
  const waitMs = retryAfterMs(answer.headers);
  if (waitMs !== undefined) waits.set(error, waitMs);
  return error;
}

function failureName(status: number) {
  if (status === 404) return "missing";
  // 416: the object ends before the range, so it is not the opened one.
  if (status === 412 || status === 409 || status === 416) return "changed";
  return status === 408 || status === 429 || status >= 500 ? "busy" : "refused";
}

/** A signal that aborts when either does. `release` detaches it from both. */
function anySignal(one: AbortSignal | undefined, other: AbortSignal | undefined) {
  if (one === undefined || other === undefined)
    return { signal: one ?? other, release: () => undefined };
  const both = new AbortController();
  const abort = (event: Event) => both.abort((event.target as AbortSignal).reason);
  for (const signal of [one, other]) {
    if (signal.aborted) both.abort(signal.reason);
    signal.addEventListener("abort", abort, { once: true });
  }
  const release = () => {
    for (const signal of [one, other]) signal.removeEventListener("abort", abort);
  };
  return { signal: both.signal, release };
}

/** @throws the signal's reason */
export async function sleep(ms: number, signal: AbortSignal | undefined): Promise<void> {
  signal?.throwIfAborted();
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, ms);
  const onAbort = () => reject(signal?.reason);
  signal?.addEventListener("abort", onAbort, { once: true });
  try {
    await promise;
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", onAbort);
  }
}
