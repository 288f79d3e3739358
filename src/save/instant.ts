/**
 * The instant that a checkpoint shows. Pages are copied in rounds while the program runs; each
 * round copies the pages that changed since the one before. When the rest is small, or stops
 * shrinking, all threads of the files stop. User data, the allocators' runs and the rest are copied
 * at once, the threads continue, and the rest is written.
 *
 *   first pass ─> what changed? ─> another round ─> … ─> [stop: user data, runs, changed pages are
 *   copied aside] ─> write the rest
 *
 * A page that was not used at the last look is checked again when it is used: it may have been
 * freed and allocated again, which no detector reports.
 */
import {
  intersectRuns,
  type PageRuns,
  RunCollector,
  subtractRuns,
  uniteRuns,
} from "../changes/page-runs.ts";
import type { ChangeDetection } from "../changes/tracker.ts";
import type { StoredRuns } from "../checkpoint/format.ts";
import { whileStopped } from "../control/stops.ts";
import type { FileCore } from "../core/core.ts";
import { PauseMemoryError } from "../errors/errors.ts";
import { PAGE_SIZE, PAGES_PER_CHUNK } from "../pages/units.ts";
import { Aside, type CopiedRuns } from "./aside.ts";
import type { UsedRuns } from "./build-map.ts";
import { collectRuns, usedRuns } from "./collect.ts";
import type { Detector } from "./detector.ts";
import type { RoundReport, SavePlan } from "./options.ts";
import { countPages } from "./data-finder.ts";
import { coverPages, type FileTable } from "./save-table.ts";

/** A MemoryFile while it is saved. */
export interface SavedCore {
  readonly core: FileCore;
  table: FileTable;
  /** null: all pages are copied at the instant. */
  readonly detector: Detector | null;
}

/** A MemoryFile's allocation state at the instant. */
export interface FileState {
  readonly chunkHuge: Uint8Array;
  readonly runs: StoredRuns;
  readonly used: UsedRuns;
  readonly usedPages: number;
}

export interface Instant {
  readonly states: readonly FileState[];
  readonly pauseMs: number;
  readonly rounds: readonly RoundReport[];
  readonly detection: ChangeDetection | "none";
}

/** The pages of one file that a pass checks. */
export interface PassRuns extends UsedRuns {
  /** The place of each run's copy; null: the runs are in the file's mapping. */
  readonly address: Float64Array | null;
  /** The order in which units are stored. Default: that of memory. */
  readonly units?: readonly number[];
}

/** Writes the pages of each file that differ from the tables. */
export type WritePass = (runs: readonly PassRuns[]) => Promise<void>;

/** Pages that are copied in a millisecond, one by one. */
const PAGES_PER_MS = 400;
/** At most this many pages are always few. */
const FEW_PAGES = 256;
/** A round has helped if it leaves less than this fraction of what the last round left. */
const SHRINKS_TO = 0.75;

/** At most this many bytes are copied at the instant without a round before. */
export function bytesAtOnce({ targetPauseMs }: Pick<SavePlan, "targetPauseMs">): number {
  return targetPauseMs * PAGES_PER_MS * PAGE_SIZE;
}

/** The pages of a save table: a chunk more than the file, which may grow before the instant. */
export function pagesToCover({ sizeBytes }: FileCore): number {
  return sizeBytes / PAGE_SIZE + PAGES_PER_CHUNK;
}

export function collectState(core: FileCore): FileState {
  core.requireStillLive("saveTo()");
  const { chunkHuge, runs, usedPages } = collectRuns(core.allocator);
  return { chunkHuge, runs, used: usedRuns(runs), usedPages };
}

/** One save's way to its instant. */
export class InstantTaker {
  private readonly files: readonly SavedCore[];
  private readonly plan: SavePlan;
  private readonly write: WritePass;
  private readonly rounds: RoundReport[] = [];
  private readonly aside = new Aside();
  /** The pages of each file that the table has, or will have after the next pass. */
  private covered: UsedRuns[];
  /** The pages of each file that the next pass checks. */
  private pending: PageRuns[];

  constructor(files: readonly SavedCore[], plan: SavePlan, write: WritePass) {
    this.files = files;
    this.plan = plan;
    this.write = write;
    this.covered = files.map(() => NOTHING);
    this.pending = files.map(() => NOTHING);
  }

  /** `readUserData` is called at the instant. @throws {StopTimeoutError} {PauseMemoryError} */
  async take(readUserData: () => void): Promise<Instant> {
    try {
      const { files } = this;
      if (files.some(({ detector }) => detector !== null)) await this.copyInRounds();
      this.aside.makeReady(this.readyBytes());
      const { value, pauseMs } = whileStopped(
        files.map(({ core }) => core.control),
        { timeoutMs: this.plan.stopTimeoutMs },
        () => this.stop(readUserData),
      );
      const { states, copied } = value;
      files.forEach((file, i) => {
        file.table = coverPages(file.table, states[i]!.chunkHuge.length * PAGES_PER_CHUNK);
        const { start, length } = copied[i]!.holes;
        for (let hole = 0; hole < start.length; hole++)
          file.table.frame.fill(0, start[hole]!, start[hole]! + length[hole]!);
      });
      await this.write(copied.map(({ runs }) => runs));
      const detection = files.find(({ detector }) => detector !== null)?.detector?.detection;
      return { states, pauseMs, rounds: this.rounds, detection: detection ?? "none" };
    } finally {
      this.aside.close();
    }
  }

  private async copyInRounds(): Promise<void> {
    const { files } = this;
    const states = files.map(({ core }) => collectState(core));
    this.covered = states.map(({ used }) => used);
    for (const [i, { detector }] of files.entries()) {
      const { used } = states[i]!;
      this.pending[i] =
        detector === null ? used : intersectRuns(await detector.first(used), used).runs;
    }
    const maxRounds = Math.max(...files.map(({ detector }) => detector?.maxRounds ?? 1));
    for (let previous = Number.POSITIVE_INFINITY; ; ) {
      await this.copyRound();
      const splitUnits = this.splitUnits();
      const lookMs = this.look();
      const pages = pagesOfAll(this.pending);
      const budget = (this.plan.targetPauseMs - lookMs) * PAGES_PER_MS;
      if (pages <= Math.max(FEW_PAGES, budget) || this.rounds.length >= maxRounds) return;
      // Where the look has split huge pages, the next one finds single pages.
      if (pages > SHRINKS_TO * previous && this.splitUnits() === splitUnits) return;
      previous = pages;
    }
  }

  private splitUnits(): number {
    return this.files.reduce((sum, { core }) => sum + core.changes.counters().splitUnits, 0);
  }

  private async copyRound(): Promise<void> {
    const beganMs = performance.now();
    this.coverTables();
    const pass = this.pending.map((runs) => ({ ...runs, address: null }));
    await this.write(pass);
    const durationMs = performance.now() - beganMs;
    this.rounds.push({ pages: pagesOfAll(this.pending), durationMs });
    this.plan.signal?.throwIfAborted();
  }

  private coverTables(): void {
    for (const file of this.files) file.table = coverPages(file.table, pagesToCover(file.core));
  }

  /** Finds the pages that changed since the last look. Returns how long that took. */
  private look(): number {
    const beganMs = performance.now();
    const states = this.files.map(({ core }) => collectState(core));
    this.files.forEach((file, i) => {
      this.pending[i] = this.toCopy(file, i, states[i]!.used, NOTHING, false);
      this.covered[i] = states[i]!.used;
    });
    return performance.now() - beganMs;
  }

  /** The used pages to copy: changed, left from before, or newly used. */
  private toCopy(
    { detector, table }: SavedCore,
    index: number,
    used: UsedRuns,
    left: PageRuns,
    isHurried: boolean,
  ): PageRuns {
    if (detector === null) return used;
    const changed = uniteRuns(detector.changed(used, table, isHurried), left).runs;
    const fresh = subtractRuns(used, this.covered[index]!);
    return uniteRuns(intersectRuns(changed, used).runs, fresh).runs;
  }

  private readyBytes(): number {
    const pages = Math.ceil(1.5 * pagesOfAll(this.pending)) + FEW_PAGES;
    return Math.min(pages * PAGE_SIZE, Math.max(this.plan.pauseMemoryBytes, PAGE_SIZE));
  }

  /** Runs while all threads are stopped. */
  private stop(readUserData: () => void) {
    const { files, plan, aside } = this;
    readUserData();
    const states = files.map(({ core }) => collectState(core));
    const runs = files.map((file, i) =>
      this.toCopy(file, i, states[i]!.used, this.pending[i]!, true),
    );
    const bytes = runs.reduce((sum, each, i) => {
      const pages = countPages(each.length);
      return sum + Math.min(pages * PAGE_SIZE, files[i]!.core.mapping.memoryBytes);
    }, 0);
    if (bytes > plan.pauseMemoryBytes) throw new PauseMemoryError(bytes, plan.pauseMemoryBytes);
    const copied = files.map(({ core }, i) => {
      const holes = new RunCollector();
      const addHole = (start: number, end: number) => holes.add(start, end);
      const found: CopiedRuns = aside.copy(core.mapping, runs[i]!, addHole);
      return { runs: found, holes: holes.runs };
    });
    return { states, copied };
  }
}

const NOTHING: UsedRuns = { start: new Uint32Array(0), length: new Uint32Array(0) };

function pagesOfAll(files: readonly PageRuns[]): number {
  return files.reduce((sum, { length }) => sum + countPages(length), 0);
}
