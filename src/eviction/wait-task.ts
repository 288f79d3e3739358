/**
 * Waits for one event of memory pressure (worker/tasks.ts: "pressure.wait"). The thread sleeps in
 * poll(2). It wakes up for the trigger, for the eventfd with which its owner ends the wait, and
 * every few seconds, because a thread that sleeps in a native call cannot be terminated.
 */
import { POLLERR, POLLIN, POLLNVAL, POLLPRI, waitForEvents } from "../../ffi/index.ts";

const WAKE_INTERVAL_MS = 5000;

export interface WaitTask {
  readonly triggerFd: number;
  readonly stopFd: number;
}

/** "lost": there is nothing to wait for any more, because the cgroup is gone. */
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
