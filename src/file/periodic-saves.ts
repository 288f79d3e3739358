/**
 * Saves repeatedly in the background of a program, until it is told to stop or the file ends.
 *
 * Saves never overlap: the next one begins `everyMs` after the last one began, or when the last one
 * has ended. After an error the wait doubles, up to a minute or `everyMs`. Pauses take at most 5 %
 * of the time: after a save that paused the program for 100 ms, at least 1.9 s pass without one.
 */
import { checkFunction, checkInteger, showValue } from "../../ffi/index.ts";
import { DestroyedError } from "../errors/errors.ts";

/** The part of a save's report that is needed here: how long the program was paused. */
export interface PausedReport {
  readonly pauseMs: number;
}

export interface PeriodicOptions<Report extends PausedReport> {
  /** Called after each save. */
  readonly onSave?: ((report: Report) => void) | undefined;
  /**
   * Called when a save has failed. Saving continues. Default: a process warning with code
   * PGALLOC_CHECKPOINT_FAILED, for the first of several failures in a row.
   */
  readonly onError?: ((error: unknown) => void) | undefined;
  /** Once aborted, no save begins, and the one under way ends. */
  readonly signal?: AbortSignal | undefined;
}

const PAUSE_SHARE_MAX = 0.05;
const ERROR_WAIT_MAX_MS = 60_000;
/** The longest wait of a timer. */
const EVERY_MAX_MS = 2 ** 31 - 1;

export class PeriodicSaves<Report extends PausedReport> implements AsyncDisposable {
  /** The report of the last save that succeeded. */
  lastReport: Report | undefined;
  /** Failures since that save. */
  failures = 0;
  private readonly save: () => Promise<Report>;
  private readonly everyMs: number;
  private readonly options: PeriodicOptions<Report>;
  private timer: NodeJS.Timeout | undefined;
  private running: Promise<void> | undefined;
  private isStopped = false;

  /** @throws {TypeError} {RangeError} */
  constructor(save: () => Promise<Report>, everyMs: number, options: PeriodicOptions<Report> = {}) {
    checkInteger("everyMs", everyMs, 1, EVERY_MAX_MS);
    for (const name of ["onSave", "onError"] as const) {
      if (options[name] !== undefined) checkFunction(name, options[name]);
    }
    const { signal } = options;
    if (signal !== undefined && !(signal instanceof AbortSignal))
      throw new TypeError(`Expected signal to be an AbortSignal, got ${showValue(signal)}`);
    this.save = save;
    this.everyMs = everyMs;
    this.options = options;
    this.isStopped = signal?.aborted === true;
    signal?.addEventListener("abort", () => void this.stop(), { once: true });
    this.wait(everyMs);
  }

  /**
   * Begins no more saves, and reports no later failure. Resolves when the save under way has ended.
   */
  async stop(): Promise<void> {
    this.isStopped = true;
    clearTimeout(this.timer);
    await this.running;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  /** The process may exit meanwhile. */
  private wait(waitMs: number): void {
    if (this.isStopped) return;
    this.timer = setTimeout(() => {
      this.running = this.saveOnce().finally(() => {
        this.running = undefined;
      });
    }, waitMs);
    this.timer.unref();
  }

  private async saveOnce(): Promise<void> {
    const began = performance.now();
    let restMs = 0;
    try {
      const report = await this.save();
      this.lastReport = report;
      this.failures = 0;
      restMs = report.pauseMs / PAUSE_SHARE_MAX - report.pauseMs;
      this.options.onSave?.(report);
    } catch (error) {
      if (error instanceof DestroyedError) this.isStopped = true;
      if (this.isStopped) return;
      this.failures++;
      restMs = Math.max(
        this.everyMs,
        Math.min(ERROR_WAIT_MAX_MS, this.everyMs * 2 ** Math.min(this.failures, 20)),
      );
      // If onError throws, that rejection is the program's own. Saves go on.
      this.tell(error);
    } finally {
      const leftMs = this.everyMs - (performance.now() - began);
      this.wait(Math.min(EVERY_MAX_MS, Math.max(0, leftMs, restMs)));
    }
  }

  private tell(error: unknown): void {
    if (this.options.onError !== undefined) {
      this.options.onError(error);
      return;
    }
    if (this.failures > 1) return;
    const message = error instanceof Error ? error.message : String(error);
    process.emitWarning(`A periodic checkpoint failed, and is tried again: ${message}`, {
      type: "MemoryFileWarning",
      code: "PGALLOC_CHECKPOINT_FAILED",
    });
  }
}
