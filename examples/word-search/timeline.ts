/**
 * Prints events with their time since the start of the process. On a terminal it also shows a
 * progress bar.
 */

const BAR_WIDTH = 30;

export class Timeline {
  readonly #marks = new Map<string, number>();
  #barShown = false;

  constructor(title: string) {
    console.log(`\n${title}`);
    this.mark("process start", undefined, 0);
  }

  static mebibytes(bytes: number): string {
    return `${(bytes / 2 ** 20).toFixed(1)} MiB`;
  }

  mark(what: string, detail?: string, atMs = performance.now()): void {
    this.#clearBar();
    this.#marks.set(what, atMs);
    console.log(
      `  ${atMs.toFixed(1).padStart(9)} ms  ${what}${detail === undefined ? "" : `  (${detail})`}`,
    );
  }

  note(text: string): void {
    this.#clearBar();
    console.log(`${" ".repeat(15)}${text}`);
  }

  /** Bytes per second from a mark to now. */
  rate(bytes: number, since: string): string {
    const seconds = (performance.now() - (this.#marks.get(since) ?? 0)) / 1000;
    return `${(bytes / 2 ** 20 / seconds).toFixed(0)} MiB/s`;
  }

  progress(load: { readonly loadedBytes: number; readonly totalBytes: number }): void {
    if (!process.stderr.isTTY || load.totalBytes === 0) return;
    const filled = Math.round((BAR_WIDTH * load.loadedBytes) / load.totalBytes);
    process.stderr.write(
      `\r  [${"#".repeat(filled)}${".".repeat(BAR_WIDTH - filled)}] ` +
        `${Timeline.mebibytes(load.loadedBytes)} `,
    );
    this.#barShown = true;
  }

  #clearBar(): void {
    if (this.#barShown) process.stderr.write(`\r${" ".repeat(BAR_WIDTH + 20)}\r`);
    this.#barShown = false;
  }
}
