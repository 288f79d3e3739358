/** The parts that commands for remote places share: flags of S3, and progress on a terminal. */
import type { S3Options } from "../http/s3-options.ts";
import { formatBytes } from "./bytes.ts";

/** Columns that progress uses. */
const WIDTH = 60;

export const S3_FLAGS = {
  endpoint: { type: "string" },
  region: { type: "string" },
  "path-style": { type: "boolean" },
} as const;

/** Flags take precedence over the AWS_* variables. Credentials come only from these variables. */
export function s3Of(values: {
  endpoint?: string | undefined;
  region?: string | undefined;
  "path-style"?: boolean | undefined;
}): S3Options {
  return {
    ...(values.endpoint === undefined ? {} : { endpoint: values.endpoint }),
    ...(values.region === undefined ? {} : { region: values.region }),
    ...(values["path-style"] === undefined ? {} : { pathStyle: values["path-style"] }),
  };
}

/**
 * Shows progress if standard error is a terminal. Standard output is for results. It ends with its
 * scope.
 */
export class TerminalProgress implements Disposable {
  private readonly beganMs = performance.now();
  private shownMs = 0;

  transfer(doneBytes: number, totalBytes: number): void {
    const rate = doneBytes / ((performance.now() - this.beganMs) / 1000);
    this.show(`${formatBytes(doneBytes)} of ${formatBytes(totalBytes)}, ${formatBytes(rate)}/s`);
  }

  show(text: string): void {
    const nowMs = performance.now();
    if (!process.stderr.isTTY || nowMs - this.shownMs < 100) return;
    this.shownMs = nowMs;
    process.stderr.write(`\r${text.padEnd(WIDTH).slice(0, WIDTH)}`);
  }

  [Symbol.dispose](): void {
    if (this.shownMs > 0) process.stderr.write(`\r${" ".repeat(WIDTH)}\r`);
  }
}
