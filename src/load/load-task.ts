/**
 * What a loading thread runs (threads/tasks.ts: "load").
 *
 * A background thread takes unit after unit. In line it reads one at a time, what is wanted first; over io_uring it keeps as
 * many in flight as the device needs (depth.ts), and leaves what is wanted to the demand thread, which sleeps until a waiter
 * wants something and reads that at once: nothing stands before it. A spare thread is a background thread that leaves its
 * processor to the program while that waits for pages.
 */
import { hintTimeSlice } from "../../ffi/index.ts";
import { InlineQueue } from "../aio/inline-queue.ts";
import { UringQueue } from "../aio/uring-queue.ts";
import { type Control, openControl, Word } from "../control/control.ts";
import { freeSlot, takeSlot } from "../control/participants.ts";
import { reach } from "../control/interleave.ts";
import { nap } from "../threads/thread.ts";
import { HUGE_PAGE_SIZE, PAGES_PER_CHUNK } from "../pages/units.ts";
import { Depth } from "./depth.ts";
import { type LoadHandle, LoadState, LoadWord, URING_DEPTH_MAX } from "./load-state.ts";
import { UnitReader } from "./unit-reader.ts";

export interface LoadTask {
  readonly role: "background" | "spare" | "demand";
  readonly queue: "inline" | "uring";
  readonly control: SharedArrayBuffer;
  readonly state: LoadHandle;
  readonly base: number;
  readonly fd: number;
  readonly directFd: number;
}

/**
 * Whoever wakes up, be it the demand thread or the program, takes a processor from the background pass at once and not when
 * its slice (1.4 ms on two processors) is over. On a machine that others used, the better half of seven loads had a p99 of 3.3 to
 * 4.9 ms with it and of 4.4 to 9.7 without; the other half was noise in both.
 */
const SLICE_NS = { background: 10_000_000, spare: 10_000_000, demand: 100_000 } as const;
/**
 * In line, contents are checked after each so many bytes, while the processor has them in its cache: to read and check 2 MiB took
 * 508 us at once, 427 to 454 in such pieces (two threads, page cache hot). From a device they do not come by way of the cache.
 */
export const INLINE_READ_BYTES = 512 * 1024;
/** A sleeper looks this often whether a thread died with a claim, or before it had counted what it read. */
export const LIVENESS_CHECK_MS = 200;
/** For so long after somebody wanted pages, others are expected to, and spare threads sleep. */
export const YIELD_MS = 10;

export async function run(task: LoadTask): Promise<void> {
  const control = openControl(task.control);
  // The thread that started this one may die, and the file with it, while this one reads.
  const slot = takeSlot(control.words);
  hintTimeSlice(SLICE_NS[task.role]);
  try {
    if (Atomics.load(control.words, Word.Destroyed) === 0) await read(task, control);
  } finally {
    // The pool's next task is another one.
    hintTimeSlice(0);
    freeSlot(control.words, slot);
  }
}

async function read(task: LoadTask, control: Control): Promise<void> {
  const state = new LoadState(task.state);
  const isInline = task.queue === "inline";
  const depth = isInline ? 1 : URING_DEPTH_MAX;
  const queue = isInline ? new InlineQueue(depth) : new UringQueue(depth, state.rings);
  const readBytes = isInline ? INLINE_READ_BYTES : HUGE_PAGE_SIZE;
  // This thread makes hardly any garbage: a buffer for a whole chunk has it collect once in 1 GiB.
  const reader = new UnitReader({ ...task, control, state }, queue, {
    depth,
    readBytes,
    windowPages: PAGES_PER_CHUNK,
  });
  try {
    if (task.role !== "demand") Atomics.store(state.words, LoadWord.Begun, 1);
    if (task.role === "demand") serveDemand(state, reader, control);
    else if (task.role === "spare") readSpare(state, reader);
    else if (isInline) while (readNext(state, reader));
    else readDeep(state, reader, new Depth(depth));
  } finally {
    await queue.destroy();
    reader.close();
  }
}

/** One step of a background pass in line: false when it has come to the end, or is to stop. */
export function readNext(state: LoadState, reader: UnitReader): boolean {
  if (Atomics.load(state.words, LoadWord.Stop) !== 0) return false;
  if (reader.readDemanded()) return true;
  const isMore = startNext(state, reader);
  while (reader.inFlight > 0) reader.collect();
  return isMore;
}

/** Begins the background pass's next unit. False at the end. */
function startNext(state: LoadState, reader: UnitReader): boolean {
  const unit = Atomics.add(state.words, LoadWord.NextUnit, 1);
  if (unit >= state.unitCount) return false;
  reader.startUnit(unit);
  return true;
}

/** A background pass in line that sleeps while pages are wanted. */
function readSpare(state: LoadState, reader: UnitReader): void {
  const { words } = state;
  let known = Atomics.load(words, LoadWord.Demand);
  while (readNext(state, reader)) {
    for (
      let demand = Atomics.load(words, LoadWord.Demand);
      demand !== known;
      demand = Atomics.load(words, LoadWord.Demand)
    ) {
      if (Atomics.load(words, LoadWord.Stop) !== 0) return;
      known = demand;
      // Not on Demand itself: it would be woken with the demand thread, for nothing.
      nap(YIELD_MS);
    }
  }
}

function readDeep(state: LoadState, reader: UnitReader, depth: Depth): void {
  const { words } = state;
  // Not what the word is now: what was wanted before this thread began is seen as well.
  let demand = 0;
  for (let isMore = true; isMore || reader.inFlight > 0; ) {
    const nowMs = performance.now();
    const seen = Atomics.load(words, LoadWord.Demand);
    if (seen !== demand) {
      depth.giveWay(nowMs);
      // The demand thread starts only when the thread that called `loadFrom` lets it, which may be busy.
      while (Atomics.load(words, LoadWord.DemandServed) === 0 && reader.readDemanded());
    }
    demand = seen;
    const units = depth.units(nowMs);
    while (isMore && reader.inFlight < units)
      isMore = Atomics.load(words, LoadWord.Stop) === 0 && startNext(state, reader);
    const before = reader.inFlight;
    if (before === 0) continue;
    reader.collect();
    for (let arrived = before - reader.inFlight; arrived > 0; arrived--)
      depth.observe(performance.now());
  }
}

function serveDemand(state: LoadState, reader: UnitReader, control: Control): void {
  const { words } = state;
  Atomics.store(words, LoadWord.DemandServed, 1);
  try {
    readWanted(state, reader, control);
  } finally {
    Atomics.store(words, LoadWord.DemandServed, 0);
  }
}

function readWanted(state: LoadState, reader: UnitReader, control: Control): void {
  const { words } = state;
  for (let checkedMs = performance.now(); ; ) {
    const seen = Atomics.load(words, LoadWord.Demand);
    if (Atomics.load(words, LoadWord.Stop) !== 0) return;
    if (reader.readDemanded()) continue;
    if (Atomics.load(words, LoadWord.PendingPages) === 0) return;
    if (performance.now() >= checkedMs + LIVENESS_CHECK_MS) {
      // This thread is the last to leave: nobody else would find out.
      state.recoverDeadClaims();
      state.endIfAllRead(control);
      checkedMs = performance.now();
      continue;
    }
    reach("demand: found nothing wanted");
    Atomics.wait(words, LoadWord.Demand, seen, LIVENESS_CHECK_MS);
  }
}
