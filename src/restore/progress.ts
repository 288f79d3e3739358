/**
 * Progress of a restore, told to the program's callback: now and then, and once when the load has
 * ended. If the callback throws, the load is aborted with what it threw.
 */

const INTERVAL_MS = 50;

export interface ProgressOptions {
  /** Calls the program's callback. */
  readonly report: () => void;
  readonly isLoading: () => boolean;
  /** False if every file is destroyed: then there is no more to tell. */
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

  /** Tells how far the load is, unless its end has been told. */
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

  /** @throws what the callback threw */
  throwIfFailed(): void {
    if (this.failure !== undefined) throw this.failure.error;
  }
}
