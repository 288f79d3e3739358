/** Measures with fio the disk that saves write to and loads read from. */
import { rmSync, statSync } from "node:fs";
import type { Sample } from "../support/bench.ts";
import type { Workspace } from "../support/processes.ts";

/** Direct I/O bypasses the page cache. */
const COMMON = ["--direct=1", "--ioengine=libaio", "--output-format=json"];
/** Contender name → fio's options. */
const RANDOM = "fio 4 KiB random";
export const FIO_RUNS: Record<string, string[]> = {
  "fio 1 MiB × 8": ["--rw=read", "--bs=1M", "--iodepth=8"],
  "fio 1 MiB × 32": ["--rw=read", "--bs=1M", "--iodepth=32"],
  [RANDOM]: ["--rw=randread", "--bs=4k", "--iodepth=1", "--runtime=1", "--time_based"],
};
/** Writes a new file, allocated at once and synced at the end, as a save does. */
export const FIO_WRITE = "fio 2 MiB × 8, new file";
const WRITE = ["--rw=write", "--bs=2M", "--iodepth=8", "--fallocate=native", "--end_fsync=1"];

interface FioOutput {
  jobs: [
    {
      error: number;
      /** Milliseconds, with the sync. */
      job_runtime: number;
      read: {
        bw_bytes: number;
        total_ios: number;
        clat_ns: { percentile: Record<string, number> };
      };
      write: { io_bytes: number };
    },
  ];
}

export class Fio {
  private constructor(
    private readonly workspace: Workspace,
    readonly version: string,
  ) {}

  /** fio, or the reason why it cannot be used. */
  static async find(workspace: Workspace): Promise<Fio | string> {
    if (Bun.which("fio") === null) return "fio: not in PATH";
    return new Fio(workspace, (await workspace.run(["fio", "--version"])).trim());
  }

  async measure(name: string, path: string): Promise<Sample> {
    const { read, error } = await this.run(path, statSync(path).size, [
      "--name=read",
      "--readonly",
      ...FIO_RUNS[name]!,
    ]);
    if (error !== 0 || read.total_ios === 0)
      throw new Error(`fio read nothing of ${path}: error ${error}`);
    const { "50.000000": p50, "99.000000": p99 } = read.clat_ns.percentile;
    const latency = { readP50Ns: p50!, readP99Ns: p99! };
    // The sum of random reads of single pages is not a goal.
    return {
      figures: name === RANDOM ? latency : { gibPerSecond: read.bw_bytes / 2 ** 30, ...latency },
      hash: null,
    };
  }

  /** Writes a file of `bytes`, rounded down to 2 MiB, and removes it. */
  async write(path: string, bytes: number): Promise<Sample> {
    rmSync(path, { force: true });
    const {
      write,
      error,
      job_runtime: ms,
    } = await this.run(path, bytes, ["--name=write", ...WRITE]);
    rmSync(path);
    if (error !== 0 || write.io_bytes === 0)
      throw new Error(`fio wrote nothing to ${path}: error ${error}`);
    return { figures: { saveAndSyncSeconds: ms / 1000 }, hash: null };
  }

  private async run(path: string, bytes: number, options: string[]): Promise<FioOutput["jobs"][0]> {
    const output = await this.workspace.runJson([
      "fio",
      ...COMMON,
      `--filename=${path}`,
      `--size=${bytes}`,
      ...options,
    ]);
    return (output as unknown as FioOutput).jobs[0];
  }
}
