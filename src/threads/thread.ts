/**
 * Names a thread in one word of shared memory, and tells whether the thread of a word still lives.
 *
 * The kernel uses thread ids again (after as few as 32,768 threads), so an id alone could take a
 * new thread for a dead one. A word therefore has the id, below 2^22 on every Linux, and above it
 * the low bits of the thread's start time (proc(5): `starttime`, in clock ticks). A dead thread is
 * taken for a living one only if another has its id and started a multiple of 512 ticks apart. The
 * sign bit is free for the user of the word, and no thread's word is 0.
 *
 * A JavaScript thread ends only where the engine looks for it: at a loop's back edge, at the entry
 * of a function (a native one too), or asleep. In a blocking system call it lives until the call
 * returns, and its /proc entry with it: a thread that is not alive touches no memory any more.
 */
import { isUsable, readKernelFile } from "../../ffi/index.ts";

const ID_BITS = 22;
const ID_MASK = (1 << ID_BITS) - 1;
const START_MASK = 0x1ff;
/**
 * Of the fields behind the command name in /proc/TID/stat: field 3 is the state, field 22 the start
 * time. Field 1 is the id.
 */
const STATE_FIELD = 0;
const START_FIELD = 19;

/** The word of the thread that a stat file of /proc tells of, or 0 if it is dead. */
function wordIn(stat: string): number {
  // The command name is in parentheses and may contain any characters, parentheses too.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  if (fields[STATE_FIELD] === "Z" || fields[STATE_FIELD] === "X") return 0;
  return Number.parseInt(stat, 10) | ((Number(fields[START_FIELD]) & START_MASK) << ID_BITS);
}

/** This thread's word. (Every thread reads it at its start, so node:fs is not loaded for it.) */
export const THREAD_ID = isUsable
  ? wordIn(readKernelFile("/proc/thread-self/stat").toString("latin1"))
  : 1;

/** The kernel's id of that word's thread, as `ps -T` shows it. The main thread has the process's. */
export const threadNumber = (thread: number): number => thread & ID_MASK;

/**
 * True while the thread of that word may still run. Reads a file of /proc (about 10 µs): for slow
 * paths only.
 */
export function isThreadAlive(thread: number): boolean {
  if (thread === THREAD_ID) return true;
  // One call, in which no thread can end: a terminated thread leaves no descriptor open.
  const { readFileSync } = process.getBuiltinModule("node:fs");
  try {
    return wordIn(readFileSync(`/proc/self/task/${thread & ID_MASK}/stat`, "latin1")) === thread;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    // Unknown, for lack of descriptors, say. The caller asks again.
    return code !== "ENOENT" && code !== "ESRCH";
  }
}

/** This thread's own, to sleep on. */
const nobodyWakes = new Int32Array(new SharedArrayBuffer(4));

/** Blocks this thread for `ms` milliseconds; it can end meanwhile. */
export function nap(ms: number): void {
  Atomics.wait(nobodyWakes, 0, 0, ms);
}
