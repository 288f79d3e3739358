/**
 * Progress of a restore, reported to the program's callback from time to time, and once when the
 * load has ended. If the callback throws, the load is aborted with that error.
 */

const INTERVAL_MS = 50;

export interface ProgressOptions {
  /** Calls the program's callback. */
  readonly report: () => void;
  readonly isLoading: () => boolean;
  /** False if every file is destroyed: then there is nothing to report. */
  readonly hasFiles: () => boolean;
  readonly abort: (reason: unknown) => void;
}

export class Progress {
  private readonly options: ProgressOptions;
  private readonly timer: NodeJS.Timeout;
  private failure: { readonly error: unknown } | undefined;
  private hasEnded = false;

  constructor(options: ProgressOptions) {
    this.options = options;
    this.timer = setInterval(() => this.tell(), INTERVAL_MS);
    this.timer.unref();
  }

  /** Reports the load's progress, unless its end was reported. */
  tell(): void {
    const { report, isLoading, hasFiles, abort } = this.options;
    if (this.failure !== undefined || this.hasEnded) return;
    this.hasEnded = !isLoading();
    if (this.hasEnded) clearInterval(this.timer);
    if (!hasFiles()) return;
    try {
      report();
    } catch (error) {
      this.failure = { error };
      clearInterval(this.timer);
      abort(error);
    }
  }

  /** @throws the callback's error */
  throwIfFailed(): void {
    if (this.failure !== undefined) throw this.failure.error;
  }
}
