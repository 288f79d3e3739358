/**
 * The command line's output. `console.log` drops the errors of writing it, so that a full disk or a
 * closed pipe would pass for success.
 */
import { writeSync } from "node:fs";

const STDOUT = 1;
const RETRY_MS = 1;

/** Writes a line to the standard output. @throws {Error} with the `code` of a failed write */
export function print(line: string): void {
  const bytes = Buffer.from(`${line}\n`);
  for (let at = 0; at < bytes.length; ) {
    try {
      at += writeSync(STDOUT, bytes, at);
    } catch (error) {
      // A pipe that does not block is full.
      if ((error as NodeJS.ErrnoException).code !== "EAGAIN") throw error;
      Bun.sleepSync(RETRY_MS);
    }
  }
}
