/** The kernel's name for this thread, and whether another thread of the process is still alive. */
import { existsSync, readlinkSync } from "node:fs";

/** This thread's kernel id. /proc/thread-self leads to "<pid>/task/<tid>". */
export const THREAD_ID = Number(readlinkSync("/proc/thread-self").split("/").at(-1));

export function isThreadAlive(id: number): boolean {
  return existsSync(`/proc/self/task/${id}`);
}
