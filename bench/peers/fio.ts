/** fio on the file that we load from: what the disk gives to a program that does nothing else. */
import { fileStatus, openFile, closeFile, O_RDONLY } from "../../ffi/index.ts";
import type { Sample } from "../support/bench.ts";
import type { Workspace } from "../support/processes.ts";

/** Contender name → fio's options. Direct reads: the page cache is out of it. */
export const FIO_RUNS: Record<string, string[]> = {
  "fio 1 MiB × 1": ["--rw=read", "--bs=1M", "--iodepth=1"],
  "fio 1 MiB × 8": ["--rw=read", "--bs=1M", "--iodepth=8"],
  "fio 1 MiB × 32": ["--rw=read", "--bs=1M", "--iodepth=32"],
  "fio 4 KiB random": ["--rw=randread", "--bs=4k", "--iodepth=1", "--runtime=1", "--time_based"],
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
    const fd = openFile(path, O_RDONLY);
    const { sizeBytes } = fileStatus(fd);
    closeFile(fd);
    const options = [
      "--name=read",
      `--filename=${path}`,
      `--size=${sizeBytes}`,
      "--readonly",
      "--direct=1",
      "--ioengine=libaio",
    ];
    const output = (await this.workspace.runJson([
      "fio",
      ...options,
      ...FIO_RUNS[name]!,
      "--output-format=json",
    ])) as unknown as FioOutput;
    const { read, error } = output.jobs[0];
    if (error !== 0 || read.total_ios === 0) throw new Error(`fio read nothing of ${path}: error ${error}`);
    const latency = read.clat_ns.percentile;
    return {
      figures: {
        gibPerSecond: read.bw_bytes / 2 ** 30,
        readP50Ns: latency["50.000000"]!,
        readP99Ns: latency["99.000000"]!,
      },
      hash: null,
    };
  }
}
