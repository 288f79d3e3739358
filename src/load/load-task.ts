/**
 * What a loading thread runs (threads/tasks.ts: "load"). A background thread takes unit after unit, what is wanted first; the
 * demand thread sleeps until a waiter wants something, so that nothing stands before it.
 */
import { openControl, Word } from "../shared/control.ts";
import { freeSlot, takeSlot } from "../shared/participants.ts";
import { reach } from "../shared/seam.ts";
import { type LoadHandle, LoadState, LoadWord } from "./load-state.ts";
import { UnitReader } from "./unit-reader.ts";

export interface LoadTask {
  readonly role: "background" | "demand";
  readonly control: SharedArrayBuffer;
  readonly state: LoadHandle;
  readonly base: number;
  readonly fd: number;
}

export function run(task: LoadTask): void {
  const control = openControl(task.control);
  const state = new LoadState(task.state);
  // The thread that started this one may die, and the file with it, while this one reads.
  const slot = takeSlot(control.words);
  try {
    if (Atomics.load(control.words, Word.Destroyed) !== 0) return;
    const reader = new UnitReader(control, state, task.base, task.fd);
    try {
      if (task.role === "background") readAll(state, reader);
      else serveDemand(state, reader);
    } finally {
      reader.close();
    }
  } finally {
    freeSlot(control.words, slot);
  }
}

/** One step of the background pass: false when it has come to the end. */
export function readNext(state: LoadState, reader: UnitReader): boolean {
  if (reader.readDemanded()) return true;
  const unit = Atomics.add(state.words, LoadWord.NextUnit, 1);
  if (unit >= state.unitCount) return false;
  reader.readUnit(unit);
  return true;
}

function readAll(state: LoadState, reader: UnitReader): void {
  while (Atomics.load(state.words, LoadWord.Stop) === 0 && readNext(state, reader));
}

function serveDemand(state: LoadState, reader: UnitReader): void {
  const { words } = state;
  for (;;) {
    const seen = Atomics.load(words, LoadWord.Demand);
    if (Atomics.load(words, LoadWord.Stop) !== 0) return;
    if (reader.readDemanded()) continue;
    if (Atomics.load(words, LoadWord.PendingPages) === 0) return;
    reach("demand: found nothing wanted");
    Atomics.wait(words, LoadWord.Demand, seen);
  }
}
