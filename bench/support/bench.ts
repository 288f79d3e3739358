/**
 * A bench is a subject with cases. Each case is measured once per round in a process of its own, so
 * that compiled code, heap and memory of one case do not affect another. Every
 * `bench/<subject>.bench.ts` exports one, and runs it when it is started directly: `bun
 * bench/view.bench.ts`.
 *
 * A sample is named figures (units last in the names, the same names as the peers') and a hash of
 * the result, so that no figure belongs to a wrong answer.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";

export type Params = Readonly<Record<string, number | string>>;

/**
 * Bytes of an image that a whole job writes or reads, and how long to measure: the full size, or
 * the smallest that runs every line.
 */
export interface Size {
  readonly bytes: number;
  readonly isSmoke: boolean;
}

export interface Sample {
  readonly figures: Readonly<Record<string, number>>;
  /**
   * Hash of the result; null if a contender verifies it itself, or did in another round. Equal
   * among all contenders of a case.
   */
  readonly hash: string | null;
  /** Hash of the work, if it is drawn at random. Equal among all contenders of a case. */
  readonly traceHash?: string;
}

/** One measurement: the contender, the folder for files, the round. */
export interface Run {
  /** "pgalloc", or one of the bench's rivals. */
  readonly by: string;
  readonly directory: string;
  /** Seed of the random numbers in this round. */
  readonly seed: number;
  readonly isSmoke: boolean;
}

export const OURS = "pgalloc";

export interface Bench {
  readonly subject: string;
  /** The subject's title, for the report. */
  readonly title: string;
  cases(size: Size): Params[];
  /**
   * The cases that are measured in an executable with bytecode, as a service is deployed. All
   * others run from sources. Default: none.
   */
  readonly built?: "ours" | "all";
  /** Other ways to do the work of a case in this runtime. */
  rivals?(params: Params): string[];
  measure(params: Params, run: Run): Promise<Sample>;
  /** A folder that a case leaves behind; it is removed after the case's rounds. */
  scratch?(directory: string, params: Params): string;
  /** The same work by gVisor, if it has such an operation. */
  readonly gvisor?: {
    /** Makes the peer's image of a case, unless it exists. Not timed. */
    prepare?(params: Params, run: Run): { readonly image: string; readonly arguments: string[] };
    /** One round is one process of it. */
    arguments(params: Params, run: Run): string[];
    /** The hash of the peer's other results. Not timed. */
    hash?(
      params: Params,
      run: Run,
      peer: (commandLine: string[]) => Promise<Record<string, unknown>>,
    ): Promise<string>;
  };
}

export function number(params: Params, name: string): number {
  const value = params[name];
  if (typeof value !== "number")
    throw new TypeError(`Expected parameter ${name} to be a number, got ${String(value)}`);
  return value;
}

export function text(params: Params, name: string): string {
  const value = params[name];
  if (typeof value !== "string")
    throw new TypeError(`Expected parameter ${name} to be a string, got ${String(value)}`);
  return value;
}

/** mitata's options: how long to measure. */
export function budget(run: Run): {
  min_cpu_time: number;
  min_samples: number;
  warmup_samples: number;
} {
  return {
    min_cpu_time: run.isSmoke ? 1e5 : 300e6,
    min_samples: run.isSmoke ? 2 : 4,
    warmup_samples: 2,
  };
}

/**
 * Command of a child process that measures one case and prints its sample. `executable` is where
 * the bench was built.
 */
export function sampleCommand(
  bench: Bench,
  params: Params,
  run: Run,
  executable?: string,
): string[] {
  const program = executable === undefined ? [process.execPath, sourceOf(bench)] : [executable];
  return [...program, "--sample", JSON.stringify({ params, run })];
}

/**
 * Builds a program as docs/deploying.md says, unless it is built.
 * @throws {Error} with the bundler's output
 */
export function buildOnce(source: string, executable: string): void {
  if (existsSync(executable)) return;
  const flags = [
    "--compile",
    "--bytecode",
    "--format=esm",
    "--entry-naming",
    "[name].[ext]",
    "--outfile",
    executable,
  ];
  const entries = [source, join(import.meta.dir, "../../src/worker/pgalloc-worker.ts")];
  const { exitCode, stderr } = Bun.spawnSync([process.execPath, "build", ...flags, ...entries], {
    stderr: "pipe",
  });
  if (exitCode !== 0) throw new Error(`${source} cannot be built: ${stderr}`);
}

export function sourceOf({ subject }: Bench): string {
  return join(import.meta.dir, "..", `${subject}.bench.ts`);
}

/**
 * The main program of a bench file that is started directly: one sample for the runner, or all its
 * cases for a reader.
 */
export async function main(bench: Bench): Promise<void> {
  const [flag, request] = process.argv.slice(2);
  if (flag === "--sample" && request !== undefined) {
    const { params, run } = JSON.parse(request) as { params: Params; run: Run };
    process.stdout.write(`${JSON.stringify(await bench.measure(params, run))}\n`);
    return;
  }
  const command = [
    process.execPath,
    join(import.meta.dir, "../run.ts"),
    "--only",
    bench.subject,
    ...process.argv.slice(2),
  ];
  process.exitCode = await Bun.spawn(command, { stdio: ["ignore", "inherit", "inherit"] }).exited;
}
