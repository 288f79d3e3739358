/** The machine's description beside the numbers, and how quiet it was meanwhile. */
import { readFileSync } from "node:fs";
import { arch, cpus, loadavg, release, totalmem } from "node:os";
import { PAGE_SIZE } from "../../src/index.ts";
import { median } from "./statistics.ts";

export interface Machine {
  readonly cpu: string;
  readonly cores: number;
  readonly memoryBytes: number;
  readonly kernel: string;
  readonly arch: string;
  readonly bun: string;
  readonly pageBytes: number;
  readonly shmemEnabled: string;
  readonly transparentHugepages: string;
  readonly peers: readonly string[];
}

export function describeMachine(peers: readonly string[]): Machine {
  return {
    cpu: cpus()[0]?.model ?? "unknown",
    cores: cpus().length,
    memoryBytes: totalmem(),
    kernel: release(),
    arch: arch(),
    bun: Bun.version,
    pageBytes: PAGE_SIZE,
    shmemEnabled: chosen("/sys/kernel/mm/transparent_hugepage/shmem_enabled"),
    transparentHugepages: chosen("/sys/kernel/mm/transparent_hugepage/enabled"),
    peers,
  };
}

/** The word in brackets of a sysfs file of choices. */
function chosen(path: string): string {
  return /\[(\w+)\]/.exec(readOrEmpty(path))?.[1] ?? "unknown";
}

/** Containers hide some of these files. The header then says "unknown". */
function readOrEmpty(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    if (
      (error as NodeJS.ErrnoException).code === "ENOENT" ||
      (error as NodeJS.ErrnoException).code === "EACCES"
    )
      return "";
    throw error;
  }
}

/** A probe that took this many times as long as the fastest shared its core with other work. */
const SHARED_CORE = 1.3;

/**
 * Does the same fixed work repeatedly between the measurements. On a quiet machine it always takes
 * the same time. Other load shows in the load average and in stolen time. If another machine uses
 * the other thread of the core, only `issue` shows it, because it waits for nothing: `compute`
 * waits for its own results and `copy` for memory, so they hardly slow down.
 */
export class NoiseMeter {
  private readonly computeMs: number[] = [];
  private readonly issueMs: number[] = [];
  private readonly copyMs: number[] = [];
  private readonly loadBefore = loadavg()[0]!;
  private readonly stealBefore = stealTicks();
  private readonly from = new Uint8Array(2 ** 25).fill(1);
  private readonly to = new Uint8Array(2 ** 25).fill(2);

  constructor() {
    for (let i = 0; i < 5; i++) this.probe(); // Compiled, and the memory touched.
    this.computeMs.length = this.issueMs.length = this.copyMs.length = 0;
  }

  probe(): void {
    const startedMs = performance.now();
    let x = 1;
    for (let i = 0; i < 5_000_000; i++) x = Math.imul(x ^ i, 16777619);
    const computedMs = performance.now();
    x += issue(1_000_000);
    const issuedMs = performance.now();
    this.to.set(this.from);
    this.to[0] = x;
    this.computeMs.push(computedMs - startedMs);
    this.issueMs.push(issuedMs - computedMs);
    this.copyMs.push(performance.now() - issuedMs);
  }

  report(): Noise {
    const spread = (values: readonly number[]) => Math.max(...values) / median(values);
    const fastestMs = Math.min(...this.issueMs);
    return {
      probes: this.computeMs.length,
      computeSpread: spread(this.computeMs),
      sharedCoreShare:
        this.issueMs.filter((ms) => ms > SHARED_CORE * fastestMs).length / this.issueMs.length,
      copySpread: spread(this.copyMs),
      loadAverageBefore: this.loadBefore,
      stolenSeconds: (stealTicks() - this.stealBefore) / 100,
    };
  }
}

/** Eight independent sums: as many steps as the core can issue at once. */
function issue(steps: number): number {
  let [a, b, c, d, e, f, g, h] = [1, 2, 3, 4, 5, 6, 7, 8];
  for (let i = 0; i < steps; i++) {
    a = (a + i) | 0;
    b = (b ^ i) | 0;
    c = (c - i) | 0;
    d = (d + a) | 0;
    e = (e ^ b) | 0;
    f = (f + c) | 0;
    g = (g ^ d) | 0;
    h = (h + e) | 0;
  }
  return a ^ b ^ c ^ d ^ e ^ f ^ g ^ h;
}

export interface Noise {
  readonly probes: number;
  /** Slowest probe over the median one. */
  readonly computeSpread: number;
  readonly copySpread: number;
  /** How many of the probes ran on a shared core. */
  readonly sharedCoreShare: number;
  /** Load average of one minute before the bench began. */
  readonly loadAverageBefore: number;
  readonly stolenSeconds: number;
}

/** /proc/stat's eighth number, in ticks of 10 ms. */
function stealTicks(): number {
  return Number(/^cpu\s+(?:\d+\s+){7}(\d+)/m.exec(readOrEmpty("/proc/stat"))?.[1] ?? 0);
}
