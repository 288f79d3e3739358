/**
 * Names a thread by one word of shared memory, and tells whether that thread still lives.
 *
 * The kernel reuses thread ids (after as few as 32,768 threads), so an id alone could confuse a new
 * thread with a dead one. A word therefore has the id, which is below 2^22 on every Linux, and
 * above it the low bits of the thread's start time (proc(5): `starttime`, in clock ticks). A dead
 * thread seems alive only if another thread has its id and started a multiple of 512 ticks apart.
 * The sign bit is free for users of the word. No thread's word is 0.
 *
 * A JavaScript thread ends only where the engine checks for termination: at a loop's back edge, at
 * the entry of a function (a native one too), or asleep. In a blocking system call it lives until
 * the call returns, and so does its /proc entry. So a thread that is not alive touches no memory
 * any more.
 */
import { isUsable, readKernelFile } from "../../ffi/index.ts";

const ID_BITS = 22;
const ID_MASK = (1 << ID_BITS) - 1;
const START_MASK = 0x1ff;
/**
 * Indexes among the fields after the command name in /proc/TID/stat. Field 3 of the file is the
 * state, field 22 the start time.
 */
const STATE_FIELD = 0;
const START_FIELD = 19;

/** The word of the thread that a stat file of /proc describes, or 0 if the thread is dead. */
function wordIn(stat: string): number {
  // The command name is in parentheses and may contain any characters, parentheses too.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  if (fields[STATE_FIELD] === "Z" || fields[STATE_FIELD] === "X") return 0;
  return Number.parseInt(stat, 10) | ((Number(fields[START_FIELD]) & START_MASK) << ID_BITS);
}

/**
 * This thread's word. (Every thread reads it at its start, so this file does not load node:fs for
 * it.)
 */
export const THREAD_ID = isUsable
  ? wordIn(readKernelFile("/proc/thread-self/stat").toString("latin1"))
  : 1;

/**
 * The kernel's id of the word's thread, as `ps -T` shows it. The main thread's is the id of the
 * process.
 */
export const threadNumber = (thread: number): number => thread & ID_MASK;

/**
 * True while the word's thread may still run. Reads a file of /proc (about 10 µs): for slow paths
 * only.
 */
export function isThreadAlive(thread: number): boolean {
  if (thread === THREAD_ID) return true;
  // One call, in which no thread can end, so a terminated thread leaves no descriptor open.
  const { readFileSync } = process.getBuiltinModule("node:fs");
  try {
    return wordIn(readFileSync(`/proc/self/task/${thread & ID_MASK}/stat`, "latin1")) === thread;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    // Unknown, for example because there are no descriptors left. The caller asks again.
    return code !== "ENOENT" && code !== "ESRCH";
  }
}

/** This thread sleeps on it; no thread wakes it. */
const neverWoken = new Int32Array(new SharedArrayBuffer(4));

/** Blocks this thread for `ms` milliseconds. A terminated thread can end meanwhile. */
export function nap(ms: number): void {
  Atomics.wait(neverWoken, 0, 0, ms);
}
