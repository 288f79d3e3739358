/**
 * Admission: how many restores of a JavaScript thread have loading threads at once. Each has two to
 * five, and starting one takes 10 ms of a processor or more. So of hundreds of restores that begin
 * together only a few have threads, and the others follow in order with the same threads.
 *
 * A restore that is not admitted yet still serves its demands: a thread that waits for pages reads
 * them itself (own-reads.ts). If its source needs an event loop of its own, the first demand admits
 * it, unless many such loads are being read.
 */
import { canBlock } from "../source/open.ts";
import { GroupWord } from "./group.ts";
import type { LoadState } from "./load-state.ts";

const ADMITTED_MAX = 4;
/** The most loads, including those that a demand admitted. */
const URGENT_MAX = 16;
const LOOK_MS = 10;

interface Candidate {
  readonly states: readonly LoadState[];
  readonly admit: () => void;
}

let admittedCount = 0;
let candidates: Candidate[] = [];
let timer: ReturnType<typeof setInterval> | undefined;

/** Runs `run` once the loads, at least one and all of one group, are admitted. */
export async function whenAdmitted<T>(
  states: readonly LoadState[],
  run: () => Promise<T>,
): Promise<T> {
  if (admittedCount < ADMITTED_MAX) admittedCount++;
  else await untilAdmitted(states);
  try {
    return await run();
  } finally {
    admittedCount--;
    if (admittedCount < ADMITTED_MAX) admit(candidates.slice(0, 1));
  }
}

async function untilAdmitted(states: readonly LoadState[]): Promise<void> {
  const { group } = states[0]!;
  Atomics.store(group.words, GroupWord.IsQueued, 1);
  await new Promise<void>((admit) => {
    candidates.push({ states, admit });
    timer ??= setInterval(admitUrgent, LOOK_MS).unref();
  });
  Atomics.store(group.words, GroupWord.IsQueued, 0);
}

/** Admits candidates that cannot wait, or that have nothing left to do. */
function admitUrgent(): void {
  for (const candidate of candidates) if (isUrgent(candidate.states)) admit([candidate]);
}

function isUrgent(states: readonly LoadState[]): boolean {
  const { group, handle } = states[0]!;
  if (!states.some((state) => state.isLoading)) return true;
  return admittedCount < URGENT_MAX && group.hasDemand && !canBlock(handle.source);
}

function admit(chosen: readonly Candidate[]): void {
  candidates = candidates.filter((candidate) => !chosen.includes(candidate));
  if (candidates.length === 0) {
    clearInterval(timer);
    timer = undefined;
  }
  for (const candidate of chosen) {
    admittedCount++;
    candidate.admit();
  }
}
