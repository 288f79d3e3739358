/**
 * How long the event loop of this thread kept a timer waiting. A timer of 1 ms, not a chain of
 * setImmediate: a chain would itself keep a core busy. Gaps are what came on top of the timer's own
 * time.
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

  /** Ends the measurement, with the gap that goes on right now. */
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
