/**
 * The task of a loading thread (worker/tasks.ts: "load"), for all loads of a group in their order.
 *
 * - A background thread takes unit after unit. From a source that it reads inline, it reads one
 *   unit at a time, wanted ones first. With a source that reads ahead (io_uring, a remote one) it
 *   keeps several units in flight (depth.ts), and leaves wanted pages to the demand thread.
 * - The demand thread sleeps until a waiter wants pages, and reads those at once: no other read is
 *   before them.
 * - A spare thread is a background thread that leaves its processor to the program while that waits
 *   for pages.
 *
 * A thread whose source needs the event loop never blocks while reads are in flight. If a load is
 * stopped, it closes its reader, which ends reads that might never be answered, and opens another.
 */
import { hintTimeSlice } from "../../ffi/index.ts";
import { reach } from "../control/interleave.ts";
import { openControl } from "../control/control.ts";
import { nap, THREAD_ID } from "../threads/thread.ts";
import { HUGE_PAGE_SIZE } from "../pages/units.ts";
import type { PageSource } from "../source/description.ts";
import { canBlock, openBlockingReader, openReader } from "../source/open.ts";
import type { ReaderCapabilities } from "../source/reader.ts";
import { correctCounts, recoverDeadClaims } from "./dead-threads.ts";
import { DemandQueue } from "./demand-queue.ts";
import { Depth } from "./depth.ts";
import { aheadOf, hasFirst, takeFirst } from "./first-pages.ts";
import { GroupWord, LoadGroup } from "./group.ts";
import { LoadState } from "./load-state.ts";
import { DEPTH_MAX, FIRST_DEPTH_MAX, LoadWord, WORDS_PER_UNIT } from "./load-tables.ts";
import { type LoadEntry, OpenLoad } from "./open-load.ts";
import { takeUnit } from "./order.ts";
import { UnitReader } from "./unit-reader.ts";

export interface LoadTask {
  readonly role: "background" | "spare" | "demand";
  readonly source: PageSource;
  /** Loads of one group, at least one. */
  readonly loads: readonly LoadEntry[];
}

/**
 * A thread that wakes up, the demand thread or the program, takes a processor from the background
 * pass at once, instead of when its slice (1.4 ms on two processors) is over. On a machine with
 * other users, the better half of seven loads had a p99 of 3.3 to 4.9 ms with these slices, and of
 * 4.4 to 9.7 ms without. The other half was noise in both cases.
 */
const SLICE_NS = { background: 10_000_000, spare: 10_000_000, demand: 100_000 } as const;
/** The interval at which a sleeper checks for dead threads with claims or uncounted pages. */
export const LIVENESS_CHECK_MS = 200;
/** After a demand, more are expected for this long, and spare threads sleep. */
export const YIELD_MS = 10;
/** Loads that one liveness check looks at. */
const CHECKED_LOADS = 16;

export async function run(task: LoadTask): Promise<void> {
  const { role, loads } = task;
  hintTimeSlice(SLICE_NS[role]);
  const thread = new LoadingThread(task, new LoadGroup(loads[0]!.state.group));
  try {
    await thread.open();
    if (role === "demand") await thread.serveDemand();
    else await thread.readAll();
  } finally {
    await thread.close();
    // The pool's next task is another one.
    hintTimeSlice(0);
  }
}

/** The most units that a reader should have in flight. */
function depthFor({ readsInFlight, readBytesMax }: ReaderCapabilities): number {
  const units = Math.floor((readsInFlight * readBytesMax) / HUGE_PAGE_SIZE);
  return Math.max(1, Math.min(DEPTH_MAX, units));
}

class LoadingThread {
  private readonly task: LoadTask;
  private readonly group: LoadGroup;
  private reader: UnitReader | undefined;
  private checkedMs = performance.now();
  private nextChecked = 0;

  constructor(task: LoadTask, group: LoadGroup) {
    this.task = task;
    this.group = group;
  }

  async open(): Promise<void> {
    const { role, source } = this.task;
    const use = role === "demand" ? "demand" : "background";
    const opened = await openReader(source, use, this.group.rings);
    const { mayBlock } = opened.capabilities;
    const isOneByOne = role === "demand" && mayBlock;
    const depth = isOneByOne ? 1 : depthFor(opened.capabilities);
    const isFirst = role !== "demand" && this.task.loads.some(({ state }) => state.first !== null);
    this.reader = new UnitReader(opened, isFirst && !mayBlock ? FIRST_DEPTH_MAX : depth);
  }

  async close(): Promise<void> {
    await this.reader?.close();
    this.reader = undefined;
  }

  /** Ends reads of a stopped load, whatever the source does. */
  private async reopen(): Promise<UnitReader> {
    await this.close();
    await this.open();
    return this.reader!;
  }

  /** The background pass: one load after the other. */
  async readAll(): Promise<void> {
    for (const entry of this.task.loads) {
      const load = OpenLoad.enter(entry);
      if (load === null) continue;
      Atomics.store(this.group.words, GroupWord.Begun, 1);
      try {
        const reader = this.reader!;
        if (reader.mayBlock && reader.depth > 1) await this.readFirst(load);
        if (!reader.mayBlock || reader.depth > 1) await this.readDeep(load);
        else if (this.task.role === "spare") this.readSpare(load, reader);
        else while (readNext(load, reader));
      } finally {
        if (load.inFlight > 0) await this.close();
        load.close();
      }
    }
  }

  /** A background pass that sleeps while pages are wanted. */
  private readSpare(load: OpenLoad, reader: UnitReader): void {
    const { group } = this;
    let known = group.demand;
    while (readNext(load, reader)) {
      for (let demand = group.demand; demand !== known; demand = group.demand) {
        if (!load.state.isLoading) return;
        known = demand;
        // Not on Demand itself, because it would be woken with the demand thread, for nothing.
        nap(YIELD_MS);
      }
    }
  }

  /** Reads first pages through the page cache, into which the kernel reads them already. */
  private async readFirst(load: OpenLoad): Promise<void> {
    const { state } = load;
    const { source, first } = state.handle;
    if (!canBlock(source) || !hasFirst(state.words, first)) return;
    const reader = new UnitReader(openBlockingReader(source, "demand"), 1);
    try {
      while (hasFirst(state.words, first) && readNext(load, reader));
    } finally {
      await reader.close();
    }
  }

  private async readDeep(load: OpenLoad): Promise<void> {
    const { group } = this;
    const { state } = load;
    let reader = this.reader!;
    const depth = new Depth(Math.min(DEPTH_MAX, reader.depth), !reader.mayBlock);
    const { first } = state.handle;
    let isFirst = hasFirst(state.words, first);
    // Not the word's present value, because that would hide earlier demands.
    let demand = 0;
    for (let isMore = true; isMore || load.inFlight > 0; ) {
      if (Atomics.load(state.words, LoadWord.Stop) !== 0) {
        isMore = false;
        if (load.inFlight > 0 && !reader.mayBlock) reader = await this.reopen();
        if (load.inFlight === 0) return;
      }
      const nowMs = performance.now();
      const seen = group.demand;
      if (seen !== demand || group.isDemandUnderWay) depth.giveWay(nowMs);
      if (seen !== demand) {
        // The demand thread starts when the thread that called `loadFrom` returns to its event
        // loop.
        while (!group.isServed && startDemanded(load, reader));
      }
      demand = seen;
      if (isFirst) {
        // They are few in each unit, and the program will wait for them next. Until they have
        // arrived, nothing else takes a part of the bandwidth.
        const ahead = Math.min(aheadOf(first), reader.depth);
        while (reader.inFlight < ahead && startFirst(load, reader));
        isFirst = reader.inFlight > 0;
      }
      const most = isFirst ? 0 : Math.min(depth.units(nowMs), reader.usefulUnits);
      while (isMore && reader.inFlight < most) {
        const { inFlight } = reader;
        isMore = startNext(load, reader);
        if (reader.mayBlock || reader.inFlight === inFlight) continue;
        await nextTurn(reader);
        if (group.demand !== seen) break;
      }
      const before = reader.inFlight;
      if (before === 0) continue;
      if (reader.mayBlock) reader.collect();
      else await collectOrWake(reader, group, seen);
      for (let arrived = before - reader.inFlight; arrived > 0; arrived--)
        depth.observe(performance.now());
    }
  }

  async serveDemand(): Promise<void> {
    const { words } = this.group;
    const queue = new DemandQueue(this.task.loads);
    Atomics.store(words, GroupWord.DemandServed, THREAD_ID);
    try {
      while (queue.isLoading) await this.serveOnce(queue);
    } finally {
      Atomics.compareExchange(words, GroupWord.DemandServed, THREAD_ID, 0);
      Atomics.store(words, GroupWord.DemandInFlight, 0);
      await this.close();
      queue.close();
    }
  }

  private async serveOnce(queue: DemandQueue): Promise<void> {
    const { group } = this;
    const seen = group.demand;
    let reader = this.reader!;
    if (queue.hasStopped) reader = await this.reopen();
    if (reader.inFlight < reader.depth) {
      const wanted = queue.take();
      if (wanted !== null) {
        reader.startPages(wanted.load, wanted.unit, queue.want);
        if (reader.mayBlock) reader.drain();
        this.tellInFlight(reader);
        return;
      }
    }
    if (reader.inFlight > 0) {
      await collectOrWake(reader, group, seen);
      this.tellInFlight(reader);
      return;
    }
    queue.leaveEnded();
    if (performance.now() >= this.checkedMs + LIVENESS_CHECK_MS) {
      this.checkDead();
      return;
    }
    reach("demand: found nothing wanted");
    Atomics.wait(group.words, GroupWord.Demand, seen, LIVENESS_CHECK_MS);
  }

  private tellInFlight({ inFlight }: UnitReader): void {
    Atomics.store(this.group.words, GroupWord.DemandInFlight, inFlight);
  }

  /** This thread is the last to leave: no other one would find dead threads. */
  private checkDead(): void {
    const { loads } = this.task;
    for (let i = 0; i < Math.min(CHECKED_LOADS, loads.length); i++) {
      const { state: handle, control } = loads[this.nextChecked++ % loads.length]!;
      const state = new LoadState(handle);
      if (!state.isLoading) continue;
      recoverDeadClaims(state);
      correctCounts(state, openControl(control));
    }
    this.checkedMs = performance.now();
  }
}

/**
 * Lets the event loop send the requests of a unit, and takes reads that have ended. Precondition:
 * units are in flight.
 */
async function nextTurn(reader: UnitReader): Promise<void> {
  const turn = new Promise<void>((resolve) => setImmediate(resolve));
  await Promise.race([reader.collectAsync(), turn]);
}

/** Waits for reads, or for the next demand (a stopped load is one, too). */
async function collectOrWake(reader: UnitReader, group: LoadGroup, seen: number): Promise<void> {
  const wait = Atomics.waitAsync(group.words, GroupWord.Demand, seen, LIVENESS_CHECK_MS);
  if (wait.async) await Promise.race([reader.collectAsync(), wait.value]);
}

/** One step of a background pass in line: false at its end, or if the load is stopped. */
export function readNext(load: OpenLoad, reader: UnitReader): boolean {
  if (Atomics.load(load.state.words, LoadWord.Stop) !== 0) return false;
  if (startDemanded(load, reader)) {
    reader.drain();
    return true;
  }
  const isMore = startNext(load, reader);
  reader.drain();
  return isMore;
}

/** Begins the background pass's next unit. False at the end, or if the load is stopped. */
function startNext(load: OpenLoad, reader: UnitReader): boolean {
  const { state } = load;
  if (Atomics.load(state.words, LoadWord.Stop) !== 0) return false;
  if (startFirst(load, reader)) return true;
  const unit = takeUnit(state.words, state.unitCount);
  if (unit < 0) return false;
  reader.startUnit(load, unit);
  return true;
}

/** Begins the next unit of the first pages. False if there is none. */
function startFirst(load: OpenLoad, reader: UnitReader): boolean {
  const unit = takeFirst(load.state, load.uses, wanted);
  if (unit >= 0) reader.startFirst(load, unit, wanted);
  return unit >= 0;
}

const wanted = new Int32Array(WORDS_PER_UNIT);

/** Begins to read a wanted unit of the load. False if there is none, or no room. */
function startDemanded(load: OpenLoad, reader: UnitReader): boolean {
  if (reader.inFlight === reader.depth && !reader.mayBlock) return false;
  while (reader.inFlight === reader.depth) reader.collect();
  const unit = load.state.demands.take(wanted);
  if (unit < 0) return false;
  reader.startPages(load, unit, wanted);
  return true;
}
