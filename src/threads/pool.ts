/**
 * A pool of reusable Workers: each task has a thread of its own. A Worker takes 3 to 180 ms to
 * start, and terminating one is the least reliable part of Bun's Workers, so threads are kept and
 * used again.
 *
 * The states of a Worker, and the cause of each change (all on the thread that owns the pool):
 *
 *     (start) ── run() ──> busy ── "returned" / "threw" arrives ──> idle ── run() ──> busy
 *                           │                                        │
 *                           └──────────── "close" event ─────────────┴──> gone
 *
 * - busy: `running` is set. The Worker keeps the process alive, unless the task was started with
 *   `ref: false`.
 * - idle: in `idle`, unref'd: a process that has nothing else to do exits. A pool keeps at most
 *   MAX_IDLE idle threads, each for IDLE_MS, and asks the others to leave.
 * - gone: for any reason (terminate, process.exit, an uncaught error). The event "close" comes
 *   once, and last. A task that was still running is rejected with ThreadDiedError, or with
 *   WorkerNotFoundError if the thread could not start. A thread that is gone is never used again.
 *
 * A pool starts as many Workers as tasks run at once; the caller limits that number. Each
 * JavaScript thread has two pools of its own, so its tasks do not wait for another thread to be
 * awake. One pool has threads of low priority, because a thread cannot raise its priority again;
 * the other runs all other tasks.
 */
import { rebuildError, ThreadDiedError, WorkerNotFoundError } from "./errors.ts";
import { onReload } from "./reload.ts";
import type { FromWorker, ToWorker } from "./serve.ts";
import { startWorker, WORKER_URL } from "./start-worker.ts";

export interface RunningTask {
  /**
   * The value of the task function. Rejects with the value it threw, ThreadDiedError or
   * WorkerNotFoundError.
   */
  readonly done: Promise<unknown>;
}

export interface RunOptions {
  /** Whether the running task keeps the process alive. Default: true. */
  readonly ref?: boolean;
  /**
   * For work that the program does not wait for: the program's own threads run first. Default:
   * false.
   */
  readonly lowPriority?: boolean;
}

interface Running {
  readonly id: number;
  readonly task: string;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: unknown) => void;
}

interface Thread {
  readonly worker: Worker;
  /** Resolves at the event "close". */
  readonly closed: Promise<void>;
  running: Running | undefined;
  /** The error of the last "error" event: the cause of the "close" that follows. */
  uncaught: Error | undefined;
  idleSinceMs: number;
}

/**
 * Enough for a load and a save at once, with two helper threads each. An idle thread takes about 2
 * MiB.
 */
const MAX_IDLE = 6;
const IDLE_MS = 5000;

export class ThreadPool<Name extends string = string> {
  readonly #workerUrl: URL;
  readonly #nice: number;
  readonly #idleMs: number;
  /** Last in, first out: the thread with the warmest caches is used first. */
  readonly #idle: Thread[] = [];
  /** Busy and idle. */
  readonly #threads = new Set<Thread>();
  #nextId = 1;
  #maxIdle = MAX_IDLE;
  #idleTimer: ReturnType<typeof setTimeout> | undefined;

  /**
   * @param workerUrl a module that calls `serveTasks`
   * @param nice of the pool's threads, 0 to 19; a nicer process keeps its own
   * @param idleMs how long an idle thread is kept
   */
  constructor(workerUrl: URL, nice = 0, idleMs = IDLE_MS) {
    this.#workerUrl = workerUrl;
    this.#nice = nice;
    this.#idleMs = idleMs;
  }

  /**
   * Runs a task in a thread of its own. postMessage copies the payload; SharedArrayBuffers are
   * shared.
   *
   * @throws {DOMException} DataCloneError if the payload cannot be copied; the thread stays usable
   * @throws {ThreadLimitError} if no thread is idle and none can be made
   */
  run(task: Name, payload: unknown, options: RunOptions = {}): RunningTask {
    const { promise: done, resolve, reject } = Promise.withResolvers<unknown>();
    const thread = this.#idle.pop() ?? this.#start();
    const id = this.#nextId++;
    const message: ToWorker = { kind: "run", id, task, payload, nice: this.#nice };
    try {
      thread.worker.postMessage(message);
    } catch (error) {
      this.#rest(thread);
      throw error;
    }
    thread.running = { id, task, resolve, reject };
    if (options.ref ?? true) thread.worker.ref();
    else thread.worker.unref();
    return { done };
  }

  count(): { idle: number; busy: number } {
    return { idle: this.#idle.length, busy: this.#threads.size - this.#idle.length };
  }

  /** Ends all idle threads and resolves when they are gone. */
  async terminateIdle(): Promise<void> {
    const leaving = this.#idle.splice(0);
    for (const thread of leaving) {
      // Without this the process could exit, with code 0, during the await.
      thread.worker.ref();
      this.#dismiss(thread);
    }
    await Promise.all(leaving.map((thread) => thread.closed));
  }

  /** Ends all threads: idle ones now, busy ones after their tasks. */
  retire(): void {
    this.#maxIdle = 0;
    for (const thread of this.#idle.splice(0)) this.#dismiss(thread);
  }

  #start(): Thread {
    const worker = startWorker(this.#workerUrl);
    const { promise: closed, resolve } = Promise.withResolvers<void>();
    const thread: Thread = {
      worker,
      closed,
      running: undefined,
      uncaught: undefined,
      idleSinceMs: 0,
    };
    this.#threads.add(thread);
    worker.addEventListener("message", (event: MessageEvent<FromWorker>) =>
      this.#finish(thread, event.data),
    );
    worker.addEventListener("error", (event: ErrorEvent) => {
      // Handled here: it becomes the cause of the ThreadDiedError. Bun prints an error that is not
      // handled.
      event.preventDefault();
      thread.uncaught = uncaughtError(event, this.#workerUrl);
    });
    worker.addEventListener("close", (event) => {
      this.#bury(thread, (event as CloseEvent).code);
      resolve();
    });
    return thread;
  }

  #finish(thread: Thread, message: FromWorker): void {
    const { running } = thread;
    if (running === undefined || running.id !== message.id) return;
    thread.running = undefined;
    this.#rest(thread);
    if (message.kind === "returned") running.resolve(message.value);
    else running.reject(rebuildError(message.error));
  }

  #rest(thread: Thread): void {
    thread.worker.unref();
    if (this.#idle.length >= this.#maxIdle) {
      this.#dismiss(thread);
      return;
    }
    thread.idleSinceMs = performance.now();
    this.#idle.push(thread);
    this.#idleTimer ??= setTimeout(() => this.#dismissIdle(), this.#idleMs).unref();
  }

  /** Asks threads to leave that were idle for too long. The one used last is last in `idle`. */
  #dismissIdle(): void {
    this.#idleTimer = undefined;
    const before = performance.now() - this.#idleMs;
    while (this.#idle.length > 0 && this.#idle[0]!.idleSinceMs <= before)
      this.#dismiss(this.#idle.shift()!);
    const next = this.#idle[0];
    if (next === undefined) return;
    const waitMs = Math.max(1, next.idleSinceMs - before);
    this.#idleTimer = setTimeout(() => this.#dismissIdle(), waitMs).unref();
  }

  /**
   * Asks an idle thread to leave. The pool stops counting it; the "close" event frees its memory.
   */
  #dismiss(thread: Thread): void {
    this.#threads.delete(thread);
    const message: ToWorker = { kind: "leave" };
    thread.worker.postMessage(message);
  }

  #bury(thread: Thread, exitCode: number): void {
    this.#threads.delete(thread);
    const at = this.#idle.indexOf(thread);
    if (at !== -1) this.#idle.splice(at, 1);
    const { running } = thread;
    if (running === undefined) return;
    thread.running = undefined;
    const { uncaught } = thread;
    running.reject(
      uncaught instanceof WorkerNotFoundError
        ? uncaught
        : new ThreadDiedError(running.task, exitCode, uncaught),
    );
  }
}

/** The error of a Worker's "error" event. */
export function uncaughtError(event: ErrorEvent, url: URL): Error {
  const error = event.error instanceof Error ? event.error : new Error(event.message);
  const isMissing =
    event.message.includes("ModuleNotFound") && event.message.includes("(entry point)");
  return isMissing ? new WorkerNotFoundError(url.href, error) : error;
}

/**
 * A tenth of a processor when the program wants it as well. At normal priority, a program that has
 * used its share of the processor waits for the task each time it wakes up. At a lower priority, a
 * load on a busy machine could starve while it has claimed pages that the program waits for.
 */
const LOW_PRIORITY_NICE = 10;

const pool = new ThreadPool(WORKER_URL);
const lowPriorityPool = new ThreadPool(WORKER_URL, LOW_PRIORITY_NICE);

onReload(() => {
  pool.retire();
  lowPriorityPool.retire();
});

/**
 * Runs `task` of the table in worker/tasks.ts in a thread of this JavaScript thread's pools.
 *
 * @throws {DOMException} DataCloneError if the payload cannot be copied
 * @throws {ThreadLimitError} if no thread can be made
 */
export function runInThread(task: string, payload: unknown, options?: RunOptions): RunningTask {
  return (options?.lowPriority === true ? lowPriorityPool : pool).run(task, payload, options);
}

/** How many Workers this JavaScript thread has in its pools. */
export function threadCount(): { idle: number; busy: number } {
  const [one, other] = [pool.count(), lowPriorityPool.count()];
  return { idle: one.idle + other.idle, busy: one.busy + other.busy };
}

/** Ends the idle Workers of this JavaScript thread. Resolves when their threads are gone. */
export async function terminateIdleWorkers(): Promise<void> {
  await Promise.all([pool.terminateIdle(), lowPriorityPool.terminateIdle()]);
}
