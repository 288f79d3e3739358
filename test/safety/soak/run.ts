/**
 * The soak test: one program's lives (program.ts), each ended by SIGKILL at a random moment, with
 * faults injected meanwhile. Every life checks every page that the last one left, and an
 * acknowledged checkpoint is never lost.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { errnoNumber } from "../../../ffi/index.ts";
import { PAGE_SIZE } from "../../../src/index.ts";
import { type CallName, type FaultPlan, Faults } from "../support/fault-control.ts";

export interface SoakTotals {
  /** Lives. */
  rounds: number;
  kills: number;
  checkpoints: number;
  bytesWritten: number;
  pagesVerified: number;
  faultsInjected: number;
  /** Errors that the program received and survived. */
  errorsTold: number;
  mismatches: number;
}

const program = join(import.meta.dir, "program.ts");
const READS: readonly CallName[] = ["pread", "preadv"];
const WRITES: readonly CallName[] = ["pwrite", "pwritev", "fsync", "openat", "renameat", "lseek"];
const MAX_LIFE_MS = 1500;
/** At least 150 ms each. A start takes that long only on an idle machine. */
const MAX_IDLE_LIVES = 60;

function pickPlan(): FaultPlan {
  const pick = <T>(values: readonly T[]): T => values[Math.floor(Math.random() * values.length)]!;
  const from = Math.floor(Math.random() * 20);
  const plans: FaultPlan[] = [
    {
      action: "Fail",
      calls: READS,
      value: errnoNumber("EIO"),
      from,
      until: from + 3,
      onlyPages: true,
    },
    // A bad block of the disk, until another plan is armed.
    {
      action: "Fail",
      calls: READS,
      value: errnoNumber("EIO"),
      filePages: [10 * from, 10 * from + 2],
      onlyPages: true,
    },
    {
      action: "Fail",
      calls: WRITES,
      value: errnoNumber(pick(["EIO", "ENOSPC"])),
      from,
      until: from + 1,
    },
    {
      action: "Shorten",
      calls: [...READS, ...WRITES],
      value: 5000,
      from,
      until: from + 50,
      onlyPages: true,
    },
    { action: "Shorten", calls: READS, value: 0, from, until: from + 1, onlyPages: true },
    { action: "Delay", calls: [...READS, ...WRITES], value: 3, from, until: from + 20 },
    { action: "ExitThread", calls: [...READS, "pwrite"], from, until: from + 1, onlyPages: true },
  ];
  return pick(plans);
}

/**
 * One life. Returns the last round that it acknowledged.
 * @throws {Error} for a mismatch, a lost checkpoint, a crash
 */
async function live(
  directory: string,
  faults: Faults,
  acknowledged: number,
  totals: SoakTotals,
): Promise<number> {
  const seed = String(1 + Math.floor(Math.random() * 2 ** 31));
  const child = Bun.spawn({
    ...faults.command(program, directory, seed),
    stdout: "pipe",
    stderr: "pipe",
  });
  const stderr = child.stderr.text();
  const killing = setTimeout(() => child.kill("SIGKILL"), 150 + Math.random() * MAX_LIFE_MS);
  const arming = setInterval(() => {
    totals.faultsInjected += faults.hits;
    faults.arm(pickPlan());
  }, 60);
  let last = acknowledged;
  try {
    let text = "";
    for await (const chunk of child.stdout) {
      text += Buffer.from(chunk).toString();
      const lines = text.split("\n");
      text = lines.pop()!;
      for (const line of lines) last = account(JSON.parse(line), last, totals);
    }
    await child.exited;
  } finally {
    clearInterval(arming);
    clearTimeout(killing);
    // After a failure the directory stays unchanged, because it shows the error.
    child.kill("SIGKILL");
    await child.exited;
    totals.faultsInjected += faults.hits;
    faults.disarm();
  }
  totals.rounds++;
  if (child.signalCode !== "SIGKILL") {
    totals.mismatches++;
    throw new Error(
      `A life with seed ${seed} ended with ${child.signalCode ?? child.exitCode}:\n${await stderr}`,
    );
  }
  totals.kills++;
  return last;
}

type Line = { event: string; round: number; pages: number; bytes: number };

function account({ event, round, pages, bytes }: Line, last: number, totals: SoakTotals): number {
  if (event === "restored") {
    totals.pagesVerified += pages;
    if (round < last) {
      totals.mismatches++;
      throw new Error(`Checkpoint ${last} was acknowledged, and ${round} came back`);
    }
  } else if (event === "saved") {
    totals.checkpoints++;
    totals.bytesWritten += bytes;
    return round;
  } else if (event === "error") totals.errorsTold++;
  return last;
}

/**
 * Runs lives for `seconds`. `progress` is called after each. After a failure the directory is kept,
 * and the error names it. @throws {Error} for a mismatch, a lost checkpoint, a crash, or when no
 * life makes progress any more
 */
export async function soak(
  seconds: number,
  progress: (totals: SoakTotals) => void,
): Promise<SoakTotals> {
  const root = mkdtempSync(join(tmpdir(), "pgalloc-soak-"));
  const totals: SoakTotals = {
    rounds: 0,
    kills: 0,
    checkpoints: 0,
    bytesWritten: 0,
    pagesVerified: 0,
    faultsInjected: 0,
    errorsTold: 0,
    mismatches: 0,
  };
  using faults = new Faults();
  const startedMs = performance.now();
  const elapsedSeconds = () => (performance.now() - startedMs) / 1000;
  try {
    let idleLives = 0;
    for (let acknowledged = 0; elapsedSeconds() < seconds; ) {
      const before = totals.checkpoints + totals.pagesVerified + totals.errorsTold;
      acknowledged = await live(join(root, "checkpoint"), faults, acknowledged, totals);
      const now = totals.checkpoints + totals.pagesVerified + totals.errorsTold;
      idleLives = now === before ? idleLives + 1 : 0;
      if (idleLives === MAX_IDLE_LIVES)
        throw new Error(`${idleLives} lives in a row did nothing: something hangs`);
      progress(totals);
    }
  } catch (error) {
    const figure = describeSoak(totals, Math.round(elapsedSeconds()));
    throw new Error(`The soak failed after ${figure}; what it left is in ${root}`, {
      cause: error,
    });
  }
  rmSync(root, { recursive: true });
  return totals;
}

export function describeSoak(totals: SoakTotals, seconds: number): string {
  const {
    rounds,
    kills,
    checkpoints,
    bytesWritten,
    pagesVerified,
    faultsInjected,
    errorsTold,
    mismatches,
  } = totals;
  return (
    `${seconds} s: ${rounds} rounds, ${kills} kills, ${checkpoints} checkpoints, ` +
    `${(bytesWritten / 2 ** 30).toFixed(2)} GiB written, ` +
    `${((pagesVerified * PAGE_SIZE) / 2 ** 30).toFixed(2)} GiB verified page by page, ` +
    `${faultsInjected} faults injected, ` +
    `${errorsTold} errors told and survived, ${mismatches} mismatches`
  );
}
