/**
 * Depth: how many units a background pass keeps in flight. It should be as small as the device
 * allows, because a page that a program waits for arrives after all of them. It is found while
 * loading: it begins with two units, and doubles as long as that brings a twentieth more bytes a
 * second. Otherwise it goes back one step, and tries again soon. While a program waits, it is one.
 *
 * Measured: 1, 2, 4, 8 and 16 units reached 0.87, 1.00, 1.11, 1.15 and 1.15 GiB/s. This search
 * reached 1.12. With a required gain of a fifth, and 16 windows between attempts, it reached 1.05
 * (2 GiB, dense, cache cold; medians of 7 and 9 loads, in turns).
 *
 * The idea is hill climbing, as in congestion control. A step is judged over a window of many
 * units, never by one.
 */

const WINDOW_UNITS_MIN = 16;
const WINDOW_MS_MIN = 10;
const GAIN = 1.05;
/** Windows between two attempts at more. */
const REST_WINDOWS = 4;
/** After a wait, another one is expected for this long. */
const YIELD_MS = 20;

export class Depth {
  private readonly maxUnits: number;
  private current: number;
  private bestRate = 0;
  private isTrying = false;
  private restWindows = 0;
  private windowUnits = 0;
  private windowStartMs = -1;
  private yieldUntilMs = Number.NEGATIVE_INFINITY;

  private readonly yieldUnits: number;

  /**
   * `limitsItself`: the source itself says how many are of use (http/window.ts). Then the depth is
   * always `maxUnits`, except for a few units while a program waits.
   * Precondition: maxUnits >= 1.
   */
  constructor(maxUnits: number, limitsItself = false) {
    this.maxUnits = maxUnits;
    this.current = limitsItself ? maxUnits : Math.min(2, maxUnits);
    this.yieldUnits = limitsItself ? Math.ceil(maxUnits / 8) : 1;
  }

  /** How many units to keep in flight, in [1, maxUnits]. */
  units(nowMs: number): number {
    return nowMs < this.yieldUntilMs ? this.yieldUnits : this.current;
  }

  /** Called when a program waits for a page. Rates measured meanwhile do not count. */
  giveWay(nowMs: number): void {
    this.yieldUntilMs = nowMs + YIELD_MS;
    this.windowStartMs = -1;
  }

  /** Called when a unit has arrived. */
  observe(nowMs: number): void {
    if (nowMs < this.yieldUntilMs) return;
    if (this.windowStartMs < 0) {
      this.windowStartMs = nowMs;
      this.windowUnits = 0;
      return;
    }
    this.windowUnits++;
    const elapsedMs = nowMs - this.windowStartMs;
    if (this.windowUnits < WINDOW_UNITS_MIN || elapsedMs < WINDOW_MS_MIN) return;
    this.judge(this.windowUnits / elapsedMs);
    this.windowUnits = 0;
    this.windowStartMs = nowMs;
  }

  private judge(rate: number): void {
    if (this.isTrying && rate < this.bestRate * GAIN) {
      this.isTrying = false;
      this.current = Math.max(1, this.current >> 1);
      this.restWindows = REST_WINDOWS;
      return;
    }
    this.bestRate = rate;
    if (this.restWindows > 0) this.restWindows--;
    this.isTrying = this.restWindows === 0 && this.current < this.maxUnits;
    if (this.isTrying) this.current = Math.min(this.maxUnits, 2 * this.current);
  }
}
