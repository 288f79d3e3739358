/**
 * A pool of reusable Workers: one task, one thread. A Worker costs 3 to 180 ms to start, and terminating one is the
 * least trusted part of Bun's Workers, so threads are kept and used again.
 *
 * A Worker's states, and who causes each change (all on the thread that owns the pool):
 *
 *     (start) ── run() ──> busy ── "returned" / "threw" arrives ──> idle ── run() ──> busy
 *                           │                                        │
 *                           └──────────── "close" event ─────────────┴──> gone
 *
 * - busy: `running` is set. The Worker holds the process alive, unless the task was started with `ref: false`.
 * - idle: in `idle`, unref'd: a process that has nothing else to do exits by itself. More than MAX_IDLE are told to leave.
 * - gone: for whatever reason (terminate, process.exit, an uncaught error): the event "close" comes once, always last,
 *   and a task that was still running is rejected with ThreadDiedError, or WorkerNotFoundError if the thread could not
 *   even begin. A thread that is gone is never used again.
 *
 * A pool starts as many Workers as tasks run at once: the caller bounds that. The module has two pools per JavaScript
 * thread, so that a Worker's tasks do not depend on the thread that started it being awake: one of threads with low priority,
 * which cannot have another one again, and one for all other tasks.
 */
import { hintTimeSlice, timeSliceNs } from "../../ffi/index.ts";
import { rebuildError, ThreadDiedError, WorkerNotFoundError } from "./errors.ts";
import type { FromWorker, ToWorker } from "./serve.ts";

export interface RunningTask {
  /** The task function's return value. Rejects with what it threw, ThreadDiedError or WorkerNotFoundError. */
  readonly done: Promise<unknown>;
}

export interface RunOptions {
  /** Whether the running task keeps the process alive. Default: true. */
  readonly ref?: boolean;
  /** For what the program does not wait for: the program goes first at the processor. Default: false. */
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
  /** What the last "error" event said: the cause of the "close" that follows. */
  uncaught: Error | undefined;
}

/** A load and a save at once, with two helpers each, find their threads here; each idle one costs about 2 MiB. */
const MAX_IDLE = 6;

export class ThreadPool<Name extends string = string> {
  readonly #workerUrl: URL;
  readonly #nice: number;
  /** Last in, first out: the warmest thread is used first. */
  readonly #idle: Thread[] = [];
  /** Busy and idle. */
  readonly #threads = new Set<Thread>();
  #nextId = 1;

  /** `workerUrl`: a module that calls `serveTasks`. `nice`: of its threads, 0 to 19, or the process's own if that is more. */
  constructor(workerUrl: URL, nice = 0) {
    this.#workerUrl = workerUrl;
    this.#nice = nice;
  }

  /**
   * Runs a task in a thread of its own. The payload is copied as postMessage does: SharedArrayBuffers are shared.
   * @throws {DOMException} DataCloneError if the payload cannot be copied; the thread is not lost by that
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
      // Without this the process could exit (successfully) in the middle of the await.
      thread.worker.ref();
      this.#dismiss(thread);
    }
    await Promise.all(leaving.map((thread) => thread.closed));
  }

  #start(): Thread {
    const worker = startInBackground(this.#workerUrl);
    const { promise: closed, resolve } = Promise.withResolvers<void>();
    const thread: Thread = { worker, closed, running: undefined, uncaught: undefined };
    this.#threads.add(thread);
    worker.addEventListener("message", (event: MessageEvent<FromWorker>) =>
      this.#finish(thread, event.data),
    );
    worker.addEventListener("error", (event: ErrorEvent) => {
      // Handled: it becomes the cause of the ThreadDiedError. Without this it would be printed as uncaught as well.
      event.preventDefault();
      const error = event.error instanceof Error ? event.error : new Error(event.message);
      const isMissing =
        event.message.includes("ModuleNotFound") && event.message.includes("(entry point)");
      thread.uncaught = isMissing ? new WorkerNotFoundError(this.#workerUrl.href, error) : error;
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
    if (this.#idle.length < MAX_IDLE) this.#idle.push(thread);
    else this.#dismiss(thread);
  }

  /** Asks an idle thread to leave. It is counted no longer, and its memory goes with its "close". */
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

/** To start takes a Worker 10 ms of a processor. Whoever wakes up meanwhile need not wait for that. */
const START_SLICE_NS = 10_000_000;

/** A thread begins with the slice of the one that made it; its entry file gives it the system's own once it has started. */
function startInBackground(url: URL): Worker {
  const own = timeSliceNs();
  hintTimeSlice(START_SLICE_NS);
  try {
    return new Worker(url);
  } finally {
    hintTimeSlice(own);
  }
}

/**
 * The Workers' entry file is worker/pgalloc-worker.ts; or, where the program was built, beside the program's own file. There
 * `import.meta.url` may still be that of the source, on the machine that built it: CommonJS has nothing else.
 */
function workerUrl(): URL {
  const built = new URL("pgalloc-worker.js", Bun.pathToFileURL(Bun.main));
  // What an executable embeds is no file.
  if (Bun.main.startsWith("/$bunfs/") || Bun.file(built).size > 0) return built;
  return new URL(
    `../worker/pgalloc-worker.${import.meta.url.endsWith(".ts") ? "ts" : "js"}`,
    import.meta.url,
  );
}

const WORKER_URL = workerUrl();
/**
 * A tenth of a processor that the program wants as well: without that, a program that has used its share stands back behind the
 * task whenever it wakes up. Less would let a load on a busy machine starve, with pages claimed that somebody waits for.
 */
const LOW_PRIORITY_NICE = 10;

const pool = new ThreadPool(WORKER_URL);
const lowPriorityPool = new ThreadPool(WORKER_URL, LOW_PRIORITY_NICE);

/**
 * Runs `task` of the table in worker/tasks.ts in a thread of this JavaScript thread's pools.
 * @throws {DOMException} DataCloneError if the payload cannot be copied
 */
export function runInThread(task: string, payload: unknown, options?: RunOptions): RunningTask {
  return (options?.lowPriority === true ? lowPriorityPool : pool).run(task, payload, options);
}

/** How many Workers this JavaScript thread has in its pools. */
export function threadCount(): { idle: number; busy: number } {
  const [one, other] = [pool.count(), lowPriorityPool.count()];
  return { idle: one.idle + other.idle, busy: one.busy + other.busy };
}

/** Ends the idle Workers and resolves when their threads are gone: for tests that count threads. */
export async function terminateIdleThreads(): Promise<void> {
  await Promise.all([pool.terminateIdle(), lowPriorityPool.terminateIdle()]);
}
