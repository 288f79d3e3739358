/**
 * Prints events with their time in milliseconds since the process started. On a terminal it also
 * shows a progress bar, on stderr.
 */
import { formatBytes } from "./bytes.ts";
import { print } from "./print.ts";

const BAR_WIDTH = 40;

export class Timeline {
  private hasBar = false;

  constructor(title: string) {
    print(`\n${title}`);
  }

  /** Prints a line with the time; returns that time. */
  mark(what: string, atMs = performance.now()): number {
    if (this.hasBar) process.stderr.write(`\r${" ".repeat(BAR_WIDTH + 30)}\r`);
    this.hasBar = false;
    print(`  ${atMs.toFixed(1).padStart(9)} ms  ${what}`);
    return atMs;
  }

  bar(doneBytes: number, totalBytes: number): void {
    if (!process.stderr.isTTY || totalBytes === 0) return;
    const filled = Math.round((BAR_WIDTH * doneBytes) / totalBytes);
    const bar = "█".repeat(filled) + "░".repeat(BAR_WIDTH - filled);
    process.stderr.write(`\r${" ".repeat(15)}${bar} ${formatBytes(doneBytes)}   `);
    this.hasBar = true;
  }
}

/** "1.2 GiB/s" */
export function formatRate(bytes: number, milliseconds: number): string {
  return `${formatBytes(bytes / (milliseconds / 1000))}/s`;
}
