/**
 * `bun run bench`: runs every case of every bench, pgalloc and each peer in turns within each round
 * (A B A B), so that a slow minute of the machine affects all alike. Every measurement is a process
 * of its own.
 */
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { bench as aio } from "./aio.bench.ts";
import { bench as allocate } from "./allocate.bench.ts";
import { bench as big } from "./big.bench.ts";
import { bench as changes } from "./changes.bench.ts";
import { bench as coalesce } from "./coalesce.bench.ts";
import { bench as frames } from "./frames.bench.ts";
import { bench as load } from "./load.bench.ts";
import { bench as data } from "./data.bench.ts";
import { bench as dataThreads } from "./data-threads.bench.ts";
import { bench as documents } from "./documents.bench.ts";
import { bench as mapped } from "./mapped.bench.ts";
import { type Options, parseOptions, USAGE } from "./options.ts";
import { bench as exchange } from "./exchange.bench.ts";
import { Fio, FIO_RUNS, FIO_WRITE } from "./peers/fio.ts";
import { GvisorPeer } from "./peers/gvisor.ts";
import { bench as remote } from "./remote.bench.ts";
import { bench as instant } from "./instant.bench.ts";
import { bench as references } from "./references.bench.ts";
import { bench as restart } from "./restart.bench.ts";
import { drawChart } from "./report/chart.ts";
import { type CaseResult, makeCase, type Results } from "./report/results.ts";
import { formatResults } from "./report/table.ts";
import { bench as save, ourImage, peerImage } from "./save.bench.ts";
import { bench as segment } from "./segment.bench.ts";
import { bench as start } from "./start.bench.ts";
import {
  type Bench,
  buildOnce,
  OURS,
  type Params,
  type Run,
  type Sample,
  sampleCommand,
  sourceOf,
} from "./support/bench.ts";
import { warmFreeMemory } from "./support/host-memory.ts";
import { describeMachine, NoiseMeter } from "./support/machine.ts";
import { Workspace } from "./support/processes.ts";
import { filledBytes, type Pattern } from "./support/trace.ts";
import { bench as view } from "./view.bench.ts";
import { bench as zeroScan } from "./zero-scan.bench.ts";
import { pageFileIn } from "./support/image.ts";

const SINGLE: readonly Bench[] = [
  allocate,
  references,
  view,
  big,
  segment,
  zeroScan,
  coalesce,
  aio,
  exchange,
  changes,
  frames,
  mapped,
  remote,
  instant,
  data,
  dataThreads,
  documents,
  restart,
];
/** Figures of the bytes that a save wrote. */
const RESTORES: readonly Bench[] = [load, start];
const JOBS: readonly Bench[] = [save, ...RESTORES];
/** The most memory in use, in images: a save may leave another image in the page cache. */
const MEMORY_IMAGES: Readonly<Record<string, number>> = {
  save: 2,
  load: 1,
  start: 1,
  remote: 1,
};
export const SUBJECTS = [...SINGLE, ...JOBS].map(({ subject }) => subject);

/** The command line tool; returns the exit code. */
export async function runBenches(argv: readonly string[]): Promise<number> {
  if (argv.includes("--help") || argv.includes("-h")) {
    console.log(USAGE);
    return 0;
  }
  let options: Options;
  try {
    options = parseOptions(argv);
    const unknown = options.only.filter((name) => !SUBJECTS.includes(name));
    if (unknown.length > 0)
      throw new RangeError(
        `Expected --only to name ${SUBJECTS.join(", ")}; got ${unknown.join(", ")}`,
      );
  } catch (error) {
    console.error(`${(error as Error).message}\n\n${USAGE}`);
    return 2;
  }
  if (options.out !== null) mkdirSync(options.out, { recursive: true });
  const results = await measureAll(options, (line) => console.error(line));
  const report = formatResults(results);
  console.log(report);
  if (options.out !== null) {
    writeFileSync(join(options.out, "results.json"), `${JSON.stringify(results, null, 1)}\n`);
    writeFileSync(join(options.out, "results.md"), report);
    writeFileSync(join(options.out, "results.svg"), drawChart(results));
    console.error(`Written: results.json, results.md, results.svg in ${options.out}`);
  }
  return 0;
}

/** Measures what the options ask for. `log` receives a line for every case. */
export async function measureAll(options: Options, log: (line: string) => void): Promise<Results> {
  const startedAt = new Date();
  using workspace = new Workspace(options.directory);
  const peers = options.withPeers
    ? [await GvisorPeer.build(workspace), await Fio.find(workspace)]
    : [];
  const absent = options.withPeers
    ? peers.filter((peer) => typeof peer === "string")
    : ["peers: left out as asked"];
  for (const reason of absent) log(`Absent: ${reason}`);
  const present = peers.filter((peer) => typeof peer !== "string");
  const machine = describeMachine(present.map(({ version }) => version));
  const runner = new Runner(options, workspace, present, log);
  for (const bench of SINGLE) await runner.runSubject(bench);
  await runner.runJobs();
  return {
    format: 1,
    startedAt: startedAt.toISOString(),
    durationSeconds: (Date.now() - startedAt.getTime()) / 1000,
    machine,
    noise: runner.noise.report(),
    rounds: options.rounds,
    bytes: options.bytes,
    absent,
    cases: runner.cases,
  };
}

class Runner {
  readonly cases: CaseResult[] = [];
  readonly noise = new NoiseMeter();
  private readonly gvisor: GvisorPeer | undefined;
  private readonly fio: Fio | undefined;

  constructor(
    private readonly options: Options,
    private readonly workspace: Workspace,
    peers: readonly (GvisorPeer | Fio)[],
    private readonly log: (line: string) => void,
  ) {
    this.gvisor = peers.find((peer) => peer instanceof GvisorPeer);
    this.fio = peers.find((peer) => peer instanceof Fio);
  }

  private wants({ subject }: Bench): boolean {
    return this.options.only.length === 0 || this.options.only.includes(subject);
  }

  async runSubject(bench: Bench): Promise<void> {
    if (!this.wants(bench)) return;
    for (const params of bench.cases(this.options))
      await this.runCase(bench, params, this.options.rounds);
  }

  /**
   * Saves and loads of an image belong together: the last save's image is loaded, and then removed
   * to make room on the disk.
   */
  async runJobs(): Promise<void> {
    if (!JOBS.some((bench) => this.wants(bench))) return;
    for (const image of save.cases(this.options)) {
      const isUsed = RESTORES.some(
        (bench) => this.wants(bench) && this.casesOf(bench, image).length > 0,
      );
      if (!isUsed && !this.wants(save)) continue;
      await this.runCase(save, image, this.wants(save) ? this.options.rounds : 1, this.wants(save));
      for (const bench of RESTORES.filter((each) => this.wants(each))) {
        for (const params of this.casesOf(bench, image))
          await this.runCase(bench, params, this.options.rounds);
      }
      for (const path of [ourImage, peerImage])
        rmSync(path(this.workspace.directory, image), { recursive: true, force: true });
    }
  }

  private casesOf(bench: Bench, image: Params): Params[] {
    return bench
      .cases(this.options)
      .filter(({ pattern, bytes }) => pattern === image["pattern"] && bytes === image["bytes"]);
  }

  private async runCase(
    bench: Bench,
    params: Params,
    rounds: number,
    isRecorded = true,
  ): Promise<void> {
    const startedMs = performance.now();
    const contenders = this.contenders(bench, params);
    const samples: Record<string, Sample[]> = Object.fromEntries(
      Object.keys(contenders).map((name) => [name, []]),
    );
    for (let round = 0; round < rounds; round++) {
      for (const [name, measure] of Object.entries(contenders)) {
        const images =
          this.options.isSmoke || name.startsWith("fio") ? 0 : (MEMORY_IMAGES[bench.subject] ?? 0);
        if (images > 0) warmFreeMemory(images * Number(params["bytes"]));
        this.noise.probe();
        samples[name]!.push(await measure(1 + round));
      }
    }
    const { subject, title } = bench;
    const result = makeCase({ subject, title, params }, samples);
    if (isRecorded) this.cases.push(result);
    const scratch = bench.scratch?.(this.workspace.directory, params);
    if (scratch !== undefined) rmSync(scratch, { recursive: true, force: true });
    const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
    this.log(
      `${subject} ${Object.values(params).join(" ")}: ${Object.keys(contenders).join(", ")} ` +
        `(${seconds} s)`,
    );
  }

  /** The contenders by name, in the order in which they are measured. */
  private contenders(
    bench: Bench,
    params: Params,
  ): Record<string, (seed: number) => Promise<Sample>> {
    const { workspace, gvisor, fio, options } = this;
    const executable =
      bench.built !== undefined ? join(workspace.directory, bench.subject) : undefined;
    if (executable !== undefined) buildOnce(sourceOf(bench), executable);
    const runOf = (by: string, seed: number): Run => ({
      by,
      seed,
      directory: workspace.directory,
      isSmoke: options.isSmoke,
    });
    const own = (by: string, built?: string) => async (seed: number) =>
      (await workspace.runJson(
        sampleCommand(bench, params, runOf(by, seed), built),
      )) as unknown as Sample;
    const found: Record<string, (seed: number) => Promise<Sample>> = {
      [OURS]: own(OURS, executable),
    };
    if (
      gvisor !== undefined &&
      bench.gvisor !== undefined &&
      (params["queue"] ?? "auto") === "auto"
    ) {
      found["gvisor"] = (seed) => gvisor.measure(bench, params, runOf("gvisor", seed));
    }
    for (const rival of bench.rivals?.(params) ?? [])
      found[rival] = own(rival, bench.built === "all" ? executable : undefined);
    const { cache, awaits, pattern } = params;
    if (
      fio !== undefined &&
      bench === save &&
      params["bytes"] === options.bytes &&
      !options.isSmoke
    ) {
      const bytes = filledBytes(pattern as Pattern, options.bytes);
      found[FIO_WRITE] = () => fio.write(join(workspace.directory, "fio"), bytes);
    }
    if (
      fio !== undefined &&
      bench === load &&
      cache === "cold" &&
      awaits === 0 &&
      pattern === "dense"
    ) {
      const path = pageFileIn(ourImage(workspace.directory, params));
      for (const name of Object.keys(FIO_RUNS)) found[name] = () => fio.measure(name, path);
    }
    return found;
  }
}

if (import.meta.main) process.exitCode = await runBenches(process.argv.slice(2));
