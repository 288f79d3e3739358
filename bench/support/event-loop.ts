/**
 * Measures how long this thread's event loop kept a timer waiting. It uses a timer of 1 ms, because
 * a chain of setImmediate would itself keep a core busy. A gap is the time beyond the timer's own.
 */
import { percentile } from "./statistics.ts";

const TICK_MS = 1;

export class EventLoopMeter {
  private readonly gapsMs: number[] = [];
  private lastMs = performance.now();
  private timer: ReturnType<typeof setTimeout>;

  constructor() {
    this.timer = setTimeout(this.tick, TICK_MS);
  }

  private readonly tick = () => {
    this.measure();
    this.timer = setTimeout(this.tick, TICK_MS);
  };

  private measure(): void {
    const nowMs = performance.now();
    this.gapsMs.push(Math.max(0, nowMs - this.lastMs - TICK_MS));
    this.lastMs = nowMs;
  }

  /** Ends the measurement and includes the current gap. */
  stop(): { loopGapP50Ms: number; loopGapP99Ms: number; loopGapMaxMs: number } {
    clearTimeout(this.timer);
    this.measure();
    return {
      loopGapP50Ms: percentile(this.gapsMs, 0.5),
      loopGapP99Ms: percentile(this.gapsMs, 0.99),
      loopGapMaxMs: percentile(this.gapsMs, 1),
    };
  }
}
