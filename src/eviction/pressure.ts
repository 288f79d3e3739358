/**
 * The watch for memory pressure: one trigger and one sleeping thread for all files of a JavaScript
 * thread with the same threshold. The sleeping thread does not keep the process alive, and ends
 * when the last file stops watching.
 *
 * A terminated Worker's sleeping thread ends with it. Its two descriptors are holdings, which
 * another thread closes.
 *
 * No event is lost between two waits: the kernel keeps a trigger's event until it is polled.
 */
import { closeFile, createEventFd, signalEventFd } from "../../ffi/index.ts";
import { hold, letGo } from "../control/holdings.ts";
import { PressureUnavailableError } from "../errors/errors.ts";
import { runInThread } from "../threads/pool.ts";
import { openPressureTrigger, type PressureThreshold, pressureFiles } from "./pressure-file.ts";
import type { WaitResult, WaitTask } from "./wait-task.ts";

export interface PressureListener {
  onPressure(): void;
  /** There will be no more events: the watch has ended by itself. */
  onLost(error: unknown): void;
}

export interface PressureWatch {
  /** The file that reports pressure. */
  readonly path: string;
  stop(): void;
}

/** By threshold. */
const watchers = new Map<string, Watcher>();

/**
 * @throws {PressureUnavailableError} if no file reports pressure on this machine
 * @throws {SyscallError} without descriptors
 */
export function watchPressure(
  threshold: PressureThreshold,
  listener: PressureListener,
): PressureWatch {
  const key = `${threshold.stallMs}/${threshold.windowMs}`;
  let watcher = watchers.get(key);
  if (watcher === undefined) {
    watcher = new Watcher(threshold, () => watchers.delete(key));
    watchers.set(key, watcher);
  }
  return watcher.add(listener);
}

class Watcher {
  private readonly path: string;
  private readonly task: WaitTask;
  private readonly holdings: readonly number[];
  private readonly listeners = new Set<PressureListener>();
  private readonly forget: () => void;

  constructor(threshold: PressureThreshold, forget: () => void) {
    const { fd, path } = openPressureTrigger(threshold, pressureFiles());
    this.path = path;
    this.forget = forget;
    try {
      this.task = { triggerFd: fd, stopFd: createEventFd() };
    } catch (error) {
      closeFile(fd);
      throw error;
    }
    this.holdings = [hold({ fd }), hold({ fd: this.task.stopFd })];
    void this.run();
  }

  add(listener: PressureListener): PressureWatch {
    this.listeners.add(listener);
    return { path: this.path, stop: () => this.remove(listener) };
  }

  private remove(listener: PressureListener): void {
    if (!this.listeners.delete(listener) || this.listeners.size > 0) return;
    this.forget();
    signalEventFd(this.task.stopFd);
  }

  private async run(): Promise<void> {
    let failure: unknown;
    try {
      for (;;) {
        const result = (await runInThread("pressure.wait", this.task, { ref: false })
          .done) as WaitResult;
        if (result === "stopped") break;
        if (result === "lost")
          throw new PressureUnavailableError([new Error(`The cgroup of '${this.path}' is gone`)]);
        for (const listener of [...this.listeners]) listener.onPressure();
      }
    } catch (error) {
      failure = error;
    }
    // The thread has left the descriptors, with or without a message.
    for (const record of this.holdings) letGo(record);
    closeFile(this.task.triggerFd);
    closeFile(this.task.stopFd);
    if (this.listeners.size === 0) return;
    this.forget();
    for (const listener of [...this.listeners]) listener.onLost(failure);
    this.listeners.clear();
  }
}
