/**
 * RequestWindow: how many bulk requests one thread has under way. It grows while throughput grows,
 * shrinks while requests queue, and halves when the server reports an overload.
 *
 * Throughput is measured over rounds: a round ends when as many requests have ended as the window
 * holds. Requests queue if they take much longer than the fastest one did: then the network, or a
 * processor, is at its limit, and a request on demand would wait behind them. The idea is TCP Vegas
 * (Brakmo and Peterson, 1995).
 */

/** Few, because the program's first reads come at the same time as this thread's. */
const LIMIT_START = 8;
/** A window that grew must gain this much to grow again. */
const GAIN = 1.05;
const GROWTH = 2;
/** If a round has less than this fraction of the best rate, conditions have changed. */
const LOSS = 0.7;
/** A window does not grow if a request takes this many times as long as the fastest one. */
const QUEUE_GROWS = 1.6;
/** It shrinks if a request takes this many times as long: then it mostly waits. */
const QUEUE_SHRINKS = 2.2;
const SHRINK = 0.75;
const LIMIT_MIN = 3;
/** The fastest time grows by this factor in each round, because the path may have changed. */
const FORGET = 1.02;
/** Smaller requests do not show how long a large one takes. */
const LARGE_BYTES = 2 ** 20;
/** What counts as one request; smaller ones count in part. */
const WHOLE_BYTES = 2 ** 21;
const PART_MIN = 1 / 4;
/** After an overload, others are ignored for this long. */
const THROTTLE_MS = 200;

interface Round {
  bytes: number;
  ended: number;
  readonly beganMs: number;
  /** Large requests that ended, and the sum of their times. */
  large: number;
  largeMs: number;
}

function beginRound(beganMs: number): Round {
  return { bytes: 0, ended: 0, beganMs, large: 0, largeMs: 0 };
}

export class RequestWindow {
  private readonly limitMax: number;
  private current: number;
  private active = 0;
  private readonly waiting: (() => void)[] = [];
  private bestRate = 0;
  private fastestMs = Number.POSITIVE_INFINITY;
  private round: Round;
  private throttledMs = Number.NEGATIVE_INFINITY;
  private readonly now: () => number;

  /** `now`: milliseconds of a clock. */
  constructor(limitMax: number, now = () => performance.now()) {
    this.limitMax = limitMax;
    this.current = Math.min(LIMIT_START, limitMax);
    this.now = now;
    this.round = beginRound(now());
  }

  get limit(): number {
    return this.current;
  }

  /**
   * Runs `request` for so many bytes when the window has room. It resolves with the number of bytes
   * that it received.
   */
  async run(
    request: () => Promise<number>,
    signal?: AbortSignal,
    lengthBytes = WHOLE_BYTES,
  ): Promise<number> {
    const part = Math.max(PART_MIN, Math.min(1, lengthBytes / WHOLE_BYTES));
    while (this.active > 0 && this.active + part > this.current) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.waiting.push(resolve);
      await promise;
    }
    // The order of waiting requests does not matter: each checks again.
    signal?.throwIfAborted();
    this.active += part;
    const beganMs = this.now();
    try {
      const bytes = await request();
      this.ended(bytes, this.now() - beganMs);
      return bytes;
    } finally {
      this.active -= part;
      this.wake();
    }
  }

  private wake(): void {
    for (let room = this.current - this.active; room > 0; room--) this.waiting.shift()?.();
  }

  private ended(bytes: number, elapsedMs: number): void {
    const { round } = this;
    round.bytes += bytes;
    if (bytes >= LARGE_BYTES) {
      round.large++;
      round.largeMs += elapsedMs;
      this.fastestMs = Math.min(this.fastestMs, elapsedMs);
    }
    if (++round.ended >= this.current) this.endRound();
  }

  private endRound(): void {
    const { round, current } = this;
    const nowMs = this.now();
    const rate = round.bytes / Math.max(nowMs - round.beganMs, 0.1);
    const queue = round.large === 0 ? 1 : round.largeMs / round.large / this.fastestMs;
    const isFaster = rate > this.bestRate * GAIN;
    if (isFaster || rate < this.bestRate * LOSS) this.bestRate = rate;
    if (queue > QUEUE_SHRINKS) {
      const least = Math.min(LIMIT_MIN, this.limitMax);
      this.current = Math.max(least, Math.floor(current * SHRINK));
    } else if (isFaster && queue < QUEUE_GROWS)
      this.current = Math.min(this.limitMax, Math.ceil(current * GROWTH));
    this.fastestMs *= FORGET;
    this.round = beginRound(nowMs);
  }

  /** Called when the server is overloaded. */
  throttle(): void {
    const nowMs = this.now();
    if (nowMs - this.throttledMs < THROTTLE_MS) return;
    this.throttledMs = nowMs;
    this.current = Math.max(1, this.current >> 1);
    this.bestRate = 0;
    this.round = beginRound(nowMs);
  }

  /** Makes waiting requests check their signals. */
  release(): void {
    for (const resolve of this.waiting.splice(0)) resolve();
  }
}
