/**
 * Waits for one sign of memory pressure (threads/tasks.ts: "pressure.wait"). The thread sleeps in
 * poll(2) and wakes up for the trigger, for the eventfd by which its owner ends the wait, and every
 * few seconds, since a thread that is asleep in a native call cannot be terminated.
 */
import { POLLERR, POLLIN, POLLNVAL, POLLPRI, waitForEvents } from "../../ffi/index.ts";

const WAKE_INTERVAL_MS = 5000;

export interface WaitTask {
  readonly triggerFd: number;
  readonly stopFd: number;
}

/** "lost": there is nothing to wait for any more, since the cgroup is gone. */
export type WaitResult = "pressure" | "stopped" | "lost";

export function run({ triggerFd, stopFd }: WaitTask): WaitResult {
  const entries = [
    { fd: triggerFd, events: POLLPRI },
    { fd: stopFd, events: POLLIN },
  ];
  for (;;) {
    const [trigger, stop] = waitForEvents(entries, WAKE_INTERVAL_MS) as [number, number];
    if (stop !== 0) return "stopped";
    if ((trigger & (POLLERR | POLLNVAL)) !== 0) return "lost";
    if (trigger !== 0) return "pressure";
  }
}
