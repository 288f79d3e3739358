/**
 * The threads of a restore: which there are, and when each begins.
 *
 * One begins at once. The others come one by one, for each takes 10 ms of a processor to start, and a page that the program
 * awaits meanwhile may have to wait for it: the demand thread when the first one reads (until then whoever waits for pages
 * reads them), a spare one when nobody has wanted pages for a while (until then it would only sleep). On two processors, page
 * cache hot, 7 loads each in turns: the p99 of awaits was 7.4 ms (dense) and 8.0 ms (fragmented) when all started at once,
 * and is 4.5 and 4.8 ms.
 */
import { availableParallelism } from "node:os";
import { WorkerNotFoundError } from "../threads/errors.ts";
import { runInThread } from "../threads/pool.ts";
import { type LoadState, LoadWord } from "./load-state.ts";
import { type LoadTask, YIELD_MS } from "./load-task.ts";

const PROCESSORS = availableParallelism();
/** Two copy as fast as two processors can (9.5 GiB/s here); more than four would only take the program's own. */
const BACKGROUND_THREADS = Math.min(4, Math.max(2, PROCESSORS));
/** So many go on while the program waits for pages, so that it has a processor for itself; the others are spare. */
const STEADY_THREADS = Math.max(1, PROCESSORS - 1);
const MAX_THREAD_DEATHS = 8;

export class LoadThreads {
  private readonly state: LoadState;
  private readonly shared: Omit<LoadTask, "role">;
  private readonly turn: Promise<void> | undefined;
  private readonly giveUp: (error: unknown) => void;
  private deaths = 0;

  /**
   * `turn`: when the background pass may begin; undefined: at once. `giveUp` is called, and is to set LoadWord.Stop, when threads
   * die over and over again, or cannot begin.
   */
  constructor(
    state: LoadState,
    shared: Omit<LoadTask, "role">,
    turn: Promise<void> | undefined,
    giveUp: (error: unknown) => void,
  ) {
    this.state = state;
    this.shared = shared;
    this.turn = turn;
    this.giveUp = giveUp;
  }

  /** Resolves when all have left. */
  async run(): Promise<void> {
    const { shared } = this;
    const background: LoadTask = { ...shared, role: "background" };
    const spare: LoadTask = { ...shared, role: "spare" };
    // Through the page cache, so that neighbours of what is wanted now cost nothing later.
    const demand: LoadTask = { ...shared, role: "demand", queue: "inline", directFd: -1 };
    const helpers = Array.from(
      { length: shared.queue === "uring" ? 0 : BACKGROUND_THREADS - 1 },
      (_, i) => {
        return i + 1 < STEADY_THREADS ? background : spare;
      },
    );
    await Promise.all([
      this.runInTurn(background),
      ...[...helpers, demand].map((task) => this.runLater(task)),
    ]);
  }

  private async runInTurn(task: LoadTask): Promise<void> {
    await this.turn;
    await this.runThread(task);
  }

  /** Runs a task when this thread has come round its event loop, and the task has something to do. */
  private async runLater(task: LoadTask): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve));
    if (task.role === "demand") await this.untilBegun();
    else await this.turn;
    if (task.role === "spare") await this.untilQuiet();
    await this.runThread(task);
  }

  /** Waits for the background pass, unless that has to wait itself. */
  private async untilBegun(): Promise<void> {
    const { state, turn } = this;
    while (turn === undefined && state.isLoading && Atomics.load(state.words, LoadWord.Begun) === 0)
      await pause(1);
  }

  private async untilQuiet(): Promise<void> {
    const { state } = this;
    for (let known = 0; state.isLoading; await pause(YIELD_MS)) {
      const demand = Atomics.load(state.words, LoadWord.Demand);
      if (demand === known) return;
      known = demand;
    }
  }

  /** Until the task has ended: a thread that dies has a successor. */
  private async runThread(task: LoadTask): Promise<void> {
    const { state } = this;
    while (state.isLoading) {
      try {
        await runInThread("load", task, { ref: false, lowPriority: task.role !== "demand" }).done;
        return;
      } catch (error) {
        // It died, or met what no read can answer. What it had claimed is claimed anew.
        state.recoverDeadClaims();
        Atomics.store(state.words, LoadWord.NextUnit, 0);
        if (++this.deaths > MAX_THREAD_DEATHS || error instanceof WorkerNotFoundError) {
          this.giveUp(error);
          return;
        }
      }
    }
  }
}

/** Does not keep the process alive. */
function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds).unref());
}
