/** The time that a program takes from its process's start to its first answer. */
import { basename, join } from "node:path";
import { buildOnce, OURS, type Run } from "./bench.ts";
import { median } from "./statistics.ts";

const ROUNDS = 3;

export interface FirstAnswer {
  /** As deployed (docs/deploying.md); a peer's program is not built. */
  readonly deployedMs: number;
  readonly fromSourcesMs: number;
}

/**
 * Runs a program that prints the time of its answer, in ms since 1970, and the answer.
 * @throws {Error} for another answer
 */
export function firstAnswer(
  run: Run,
  source: string,
  given: readonly string[],
  answer: number,
): FirstAnswer {
  const fromSourcesMs = medianMs([process.execPath, source, ...given], answer);
  if (run.by !== OURS || run.isSmoke) return { deployedMs: fromSourcesMs, fromSourcesMs };
  const executable = join(run.directory, basename(source, ".ts"));
  buildOnce(source, executable);
  return { deployedMs: medianMs([executable, ...given], answer), fromSourcesMs };
}

function medianMs(command: readonly string[], answer: number): number {
  const rounds = Array.from({ length: ROUNDS }, () => {
    const began = performance.timeOrigin + performance.now();
    const child = Bun.spawnSync([...command]);
    const [ended, found] = child.stdout.toString().split(" ").map(Number);
    if (found !== answer) throw new Error(`${command[0]} answered ${found}: ${child.stderr}`);
    return ended! - began;
  });
  return median(rounds);
}
