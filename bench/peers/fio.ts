/** fio on the file that we load from: what the disk gives to a program that does nothing else. */
import { statSync } from "node:fs";
import type { Sample } from "../support/bench.ts";
import type { Workspace } from "../support/processes.ts";

/** Direct reads: the page cache is out of it. */
const COMMON = ["--name=read", "--readonly", "--direct=1", "--ioengine=libaio", "--output-format=json"];
/** Contender name → fio's options. */
const RANDOM = "fio 4 KiB random";
export const FIO_RUNS: Record<string, string[]> = {
  "fio 1 MiB × 8": ["--rw=read", "--bs=1M", "--iodepth=8"],
  "fio 1 MiB × 32": ["--rw=read", "--bs=1M", "--iodepth=32"],
  [RANDOM]: ["--rw=randread", "--bs=4k", "--iodepth=1", "--runtime=1", "--time_based"],
};

interface FioOutput {
  jobs: [{ error: number; read: { bw_bytes: number; total_ios: number; clat_ns: { percentile: Record<string, number> } } }];
}

export class Fio {
  private constructor(
    private readonly workspace: Workspace,
    readonly version: string,
  ) {}

  /** fio, or why there is none. */
  static async find(workspace: Workspace): Promise<Fio | string> {
    if (Bun.which("fio") === null) return "fio: not in PATH";
    return new Fio(workspace, (await workspace.run(["fio", "--version"])).trim());
  }

  async measure(name: string, path: string): Promise<Sample> {
    const file = [`--filename=${path}`, `--size=${statSync(path).size}`];
    const output = await this.workspace.runJson(["fio", ...COMMON, ...file, ...FIO_RUNS[name]!]);
    const { read, error } = (output as unknown as FioOutput).jobs[0];
    if (error !== 0 || read.total_ios === 0) throw new Error(`fio read nothing of ${path}: error ${error}`);
    const { "50.000000": p50, "99.000000": p99 } = read.clat_ns.percentile;
    const latency = { readP50Ns: p50!, readP99Ns: p99! };
    // What random reads of one page at a time add up to is nobody's goal.
    return { figures: name === RANDOM ? latency : { gibPerSecond: read.bw_bytes / 2 ** 30, ...latency }, hash: null };
  }
}
