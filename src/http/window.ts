/**
 * RequestWindow: how many bulk requests one thread has under way. It grows while throughput grows,
 * and halves when the server says that it is overloaded.
 *
 * Throughput is measured over rounds: a round ends when as many requests have ended as the window
 * holds.
 */

/** A round trip of 30 ms and parts of 2 MiB: 1 GiB/s. */
const LIMIT_START = 16;
/** A window that grew must gain this much to grow again. */
const GAIN = 1.05;
const GROWTH = 1.5;
/** A round this much slower than the best one means that conditions have changed. */
const LOSS = 0.7;
/** After an overload, no second one counts for so long. */
const THROTTLE_MS = 200;

export class RequestWindow {
  private readonly limitMax: number;
  private current: number;
  private active = 0;
  private readonly waiting: (() => void)[] = [];
  private bestRate = 0;
  private round = { bytes: 0, ended: 0, beganMs: performance.now() };
  private throttledMs = Number.NEGATIVE_INFINITY;

  constructor(limitMax: number) {
    this.limitMax = limitMax;
    this.current = Math.min(LIMIT_START, limitMax);
  }

  get limit(): number {
    return this.current;
  }

  /** Runs `request` when the window has room. It resolves with the bytes that it brought. */
  async run(request: () => Promise<number>, signal?: AbortSignal): Promise<number> {
    while (this.active >= this.current) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.waiting.push(resolve);
      await promise;
    }
    // The order of those that wait does not matter: each looks again.
    signal?.throwIfAborted();
    this.active++;
    try {
      const bytes = await request();
      this.ended(bytes);
      return bytes;
    } finally {
      this.active--;
      this.wake();
    }
  }

  private wake(): void {
    for (let room = this.current - this.active; room > 0; room--) this.waiting.shift()?.();
  }

  private ended(bytes: number): void {
    const { round } = this;
    round.bytes += bytes;
    if (++round.ended < this.current) return;
    const nowMs = performance.now();
    const rate = round.bytes / Math.max(nowMs - round.beganMs, 0.1);
    if (rate > this.bestRate * GAIN) {
      this.bestRate = rate;
      this.current = Math.min(this.limitMax, Math.ceil(this.current * GROWTH));
    } else if (rate < this.bestRate * LOSS) this.bestRate = rate;
    this.round = { bytes: 0, ended: 0, beganMs: nowMs };
  }

  /** The server is overloaded. */
  throttle(): void {
    const nowMs = performance.now();
    if (nowMs - this.throttledMs < THROTTLE_MS) return;
    this.throttledMs = nowMs;
    this.current = Math.max(1, this.current >> 1);
    this.bestRate = 0;
    this.round = { bytes: 0, ended: 0, beganMs: nowMs };
  }

  /** Lets those that wait look at their signals. */
  release(): void {
    for (const resolve of this.waiting.splice(0)) resolve();
  }
}
