/**
 * The threads of a group's loads: which there are, and when each begins.
 *
 * One begins at once. The others come one by one, since starting one takes 10 ms of a processor,
 * and a page that the program waits for may have to wait for that: the demand thread when the first
 * one reads (until then waiters read for themselves), a spare one when no page has been wanted for
 * a while (until then it would only sleep). On two processors, page cache hot, 7 loads each in
 * turns: the p99 of awaits was 7.4 ms (dense) and 8.0 ms (fragmented) when all started at once, and
 * is 4.5 and 4.8 ms.
 *
 * A load of mapped pages only populates and checks them, so it takes fewer threads: no more than
 * one for each 512 MiB, and the demand thread at the first demand.
 *
 * The number of threads does not depend on the number of loads: each goes through all of them.
 */
import { availableParallelism } from "node:os";
import { WorkerNotFoundError } from "../threads/errors.ts";
import { runInThread } from "../threads/pool.ts";
import { PAGE_SIZE } from "../pages/units.ts";
import type { PageSource } from "../source/description.ts";
import { describeSource } from "../source/describe.ts";
import { canBlock } from "../source/open.ts";
import { recoverDeadClaims } from "./dead-threads.ts";
import { GroupWord, type LoadGroup } from "./group.ts";
import type { LoadState } from "./load-state.ts";
import { LoadWord } from "./load-tables.ts";
import { type LoadTask, YIELD_MS } from "./load-task.ts";
import type { LoadEntry } from "./open-load.ts";
import { restartOrder } from "./order.ts";

const PROCESSORS = availableParallelism();
/**
 * Two copy as fast as two processors can (9.5 GiB/s here). More than four would take processors
 * from the program.
 */
export const BACKGROUND_THREADS = Math.min(4, Math.max(2, PROCESSORS));
/**
 * This many continue while the program waits for pages, and leave one processor to it. The others
 * are spare.
 */
const STEADY_THREADS = Math.max(1, PROCESSORS - 1);
const DEATHS_MAX = 8;
/** Checking as much takes 50 ms: the start of a thread would take a fifth of the time it saves. */
const MAPPED_PAGES_PER_THREAD = 2 ** 29 / PAGE_SIZE;

export interface ThreadedLoad {
  readonly state: LoadState;
  readonly entry: LoadEntry;
}

export class LoadThreads {
  private readonly loads: readonly ThreadedLoad[];
  private readonly group: LoadGroup;
  private readonly source: PageSource;
  private readonly giveUp: (error: unknown) => void;
  /** All contents are mapped. */
  private readonly isMapped: boolean;
  private deaths = 0;
  private hasGivenUp = false;

  /**
   * @param loads at least one, all of one group
   * @param giveUp called when threads die repeatedly or cannot start; must set LoadWord.Stop of
   * each load
   */
  constructor(loads: readonly ThreadedLoad[], giveUp: (error: unknown) => void) {
    const { state } = loads[0]!;
    this.loads = loads;
    this.group = state.group;
    this.source = state.handle.source;
    this.giveUp = giveUp;
    this.isMapped = loads.every((load) => isMapped(load.state));
  }

  /** Resolves when all threads have left. */
  async run(): Promise<void> {
    const shared = { source: this.source, loads: this.loads.map(({ entry }) => entry) };
    const background: LoadTask = { ...shared, role: "background" };
    const spare: LoadTask = { ...shared, role: "spare" };
    const demand: LoadTask = { ...shared, role: "demand" };
    // Only these threads can read the pages that the program waits for.
    if (!canBlock(this.source)) {
      const all = [demand, ...new Array<LoadTask>(BACKGROUND_THREADS).fill(background)];
      await Promise.all(all.map((task) => this.runThread(task)));
      return;
    }
    // Past the page cache a ring needs only one thread, unless frames are to be decoded. From the
    // page cache a ring copies as fast as threads do, but one thread cannot make huge pages and
    // check pages at that rate.
    const { isUring, isDirect } = describeSource(this.source);
    const hasFrames = this.loads.some(({ state }) => state.words[LoadWord.HasFrames] !== 0);
    const isAhead = isUring && isDirect && !hasFrames;
    const length = isAhead ? 0 : this.threadCount - 1;
    const helpers = Array.from({ length }, (_, i) => (i + 1 < STEADY_THREADS ? background : spare));
    await Promise.all([
      this.runThread(background),
      ...[...helpers, demand].map((task) => this.runLater(task)),
    ]);
  }

  /** How many threads read in the background. */
  private get threadCount(): number {
    if (!this.isMapped) return BACKGROUND_THREADS;
    let pages = 0;
    for (const { state } of this.loads) pages += state.words[LoadWord.PendingPages]!;
    const most = Math.max(1, Math.floor(pages / MAPPED_PAGES_PER_THREAD));
    return Math.min(BACKGROUND_THREADS, most);
  }

  /** Not after giving up, though the load may be tried again: another run reads then. */
  private get isLoading(): boolean {
    return !this.hasGivenUp && this.loads.some(({ state }) => state.isLoading);
  }

  /** Runs a task in a later turn of this thread's event loop, when it has work to do. */
  private async runLater(task: LoadTask): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve));
    if (task.role === "demand") await this.untilBegun();
    if (task.role === "demand" && this.isMapped) await this.untilDemand();
    if (task.role === "spare") await this.untilQuiet();
    await this.runThread(task);
  }

  private async untilBegun(): Promise<void> {
    while (this.isLoading && Atomics.load(this.group.words, GroupWord.Begun) === 0) await pause(1);
  }

  private async untilDemand(): Promise<void> {
    while (this.isLoading && this.group.demand === 0) await pause(YIELD_MS);
  }

  private async untilQuiet(): Promise<void> {
    for (let known = 0; this.isLoading; await pause(YIELD_MS)) {
      const { demand } = this.group;
      if (demand === known) return;
      known = demand;
    }
  }

  /** Repeats the task until it has ended: a thread that dies has a successor. */
  private async runThread(task: LoadTask): Promise<void> {
    while (this.isLoading) {
      try {
        await runInThread("load", task, { ref: false, lowPriority: task.role !== "demand" }).done;
        return;
      } catch (error) {
        // It died, or had an error that is not of a read. Its claims are claimed again.
        for (const { state } of this.loads) {
          if (!state.isLoading) continue;
          recoverDeadClaims(state);
          restartOrder(state.words);
        }
        if (++this.deaths > DEATHS_MAX || error instanceof WorkerNotFoundError) {
          // Once a run: the load may have been tried again since.
          if (!this.hasGivenUp) this.giveUp(error);
          this.hasGivenUp = true;
        }
      }
    }
  }
}

/** True if all contents are mapped. */
function isMapped({ handle: { overlay, mappedExtents, map } }: LoadState): boolean {
  const extents = map.extents.start.length;
  return overlay !== null && !mappedExtents.subarray(0, extents).includes(0);
}

/** Does not keep the process alive. */
function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds).unref());
}
