/**
 * Runs loads: this thread reads them, by threads or inline in its own event loop, until no page is
 * pending. LoadWord.Runner names it, so that another thread can take over.
 */
import { whenAdmitted } from "./admission.ts";
import { openBlockingReader } from "../source/open.ts";
import { correctCounts, hasClaims, recoverDeadClaims } from "./dead-threads.ts";
import { DemandQueue } from "./demand-queue.ts";
import { readNext } from "./load-task.ts";
import { LoadWord } from "./load-tables.ts";
import { restartOrder } from "./order.ts";
import { OpenLoad, OWN_WINDOW_PAGES } from "./open-load.ts";
import type { Control } from "../control/control.ts";
import { LoadThreads, type ThreadedLoad } from "./threads.ts";
import { UnitReader } from "./unit-reader.ts";

/** A load that this thread can run. */
export interface Runnable extends ThreadedLoad {
  readonly control: Control;
  /** True if `loadFrom` was called with the queue "inline". */
  readonly isInline: boolean;
  abort(reason: unknown): void;
}

const INLINE_SLICE_MS = 2;

/** Runs loads of one group, at least one. Resolves when no thread started here reads any more. */
export async function runLoads(loads: readonly Runnable[]): Promise<void> {
  let left = loads;
  while (left.length > 0) {
    try {
      if (left[0]!.isInline) await readInline(left);
      else await readInThreads(left);
    } catch (error) {
      // An error that is not of a read, such as no memory to read into: the waiters get it.
      abortAll(left, error);
    }
    for (const { state } of left) await claimsRead(state);
    for (const { state, control } of left) {
      recoverDeadClaims(state);
      correctCounts(state, control);
    }
    // Pages that were tried again, or given back, meanwhile.
    left = left.filter(({ state }) => state.isLoading);
  }
}

async function readInThreads(loads: readonly Runnable[]): Promise<void> {
  const states = loads.map(({ state }) => state);
  const threads = new LoadThreads(loads, (error) => abortAll(loads, error));
  await whenAdmitted(states, () => threads.run());
}

/** Reads a load in this thread while another one runs it. Precondition: the source can block. */
export async function readBeside(load: Runnable): Promise<void> {
  const { state, control } = load;
  recoverDeadClaims(state);
  restartOrder(state.words);
  await readInline([load]);
  correctCounts(state, control);
}

function abortAll(loads: readonly Runnable[], reason: unknown): void {
  for (const load of loads) if (load.state.isLoading) load.abort(reason);
}

/** Waits until no thread has a claim. */
export async function claimsRead(state: ThreadedLoad["state"]): Promise<void> {
  while (hasClaims(state)) await new Promise((resolve) => setTimeout(resolve, 1));
}

/** Reads in this thread, in slices, so that its event loop has turns. */
async function readInline(loads: readonly Runnable[]): Promise<void> {
  const { source } = loads[0]!.state.handle;
  const reader = new UnitReader(openBlockingReader(source, "demand"), 1);
  const demands = new DemandQueue(loads.map(({ entry }) => entry));
  try {
    for (const { control, state, entry } of loads) {
      const load = new OpenLoad({ control, state, base: entry.base }, OWN_WINDOW_PAGES);
      try {
        for (let isMore = state.isLoading; isMore; ) {
          const until = performance.now() + INLINE_SLICE_MS;
          while (isMore && performance.now() < until) {
            readDemanded(demands, reader);
            isMore = readNext(load, reader);
          }
          // Not at the end, because a program that never yields would keep every file that it
          // destroyed.
          if (state.isLoading) await new Promise((resolve) => setImmediate(resolve));
          isMore &&= Atomics.load(state.words, LoadWord.Stop) === 0;
        }
      } finally {
        load.close();
      }
    }
  } finally {
    await reader.close();
    demands.close();
  }
}

function readDemanded(demands: DemandQueue, reader: UnitReader): void {
  for (let wanted = demands.take(); wanted !== null; wanted = demands.take()) {
    reader.startPages(wanted.load, wanted.unit, demands.want);
    reader.drain();
  }
}
