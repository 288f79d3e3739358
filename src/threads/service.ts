/**
 * The service thread: a Worker that does a JavaScript thread's background work, so that the work
 * continues while the JavaScript thread is blocked.
 *
 * A JavaScript thread has at most one, started on first use. Tasks of worker/tasks.ts run side by
 * side in its event loop, and none of them may block it. The service thread does not keep the
 * process alive. It leaves after some idle seconds, and ends with the thread that started it.
 */
import { rebuildError, ThreadDiedError, WorkerNotFoundError } from "./errors.ts";
import { uncaughtError } from "./pool.ts";
import { onReload } from "./reload.ts";
import type { FromWorker, ToWorker } from "./serve.ts";
import { startWorker, WORKER_URL } from "./start-worker.ts";

interface Pending {
  readonly task: string;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: unknown) => void;
}

const IDLE_MS = 5000;

class Service {
  readonly closed: Promise<void>;
  /** True once it takes no more tasks, because it leaves or has ended. */
  isLeaving = false;
  readonly #worker: Worker;
  readonly #pending = new Map<number, Pending>();
  #nextId = 1;
  #uncaught: Error | undefined;
  #idleTimer: ReturnType<typeof setTimeout> | undefined;

  /** @throws {ThreadLimitError} */
  constructor() {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.closed = promise;
    this.#worker = startWorker(WORKER_URL);
    this.#worker.unref();
    this.#worker.addEventListener("message", ({ data }: MessageEvent<FromWorker>) =>
      this.#finish(data),
    );
    this.#worker.addEventListener("error", (event: ErrorEvent) => {
      event.preventDefault();
      this.#uncaught = uncaughtError(event, WORKER_URL);
    });
    this.#worker.addEventListener("close", (event) => {
      this.#end((event as CloseEvent).code);
      resolve();
    });
  }

  get isIdle(): boolean {
    return this.#pending.size === 0;
  }

  run(task: string, payload: unknown): Promise<unknown> {
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    const id = this.#nextId++;
    const message: ToWorker = { kind: "run", id, task, payload, nice: 0 };
    this.#worker.postMessage(message);
    this.#pending.set(id, { task, resolve, reject });
    clearTimeout(this.#idleTimer);
    return promise;
  }

  /** Ends the thread now if it has no task, else after its tasks. */
  leave(): void {
    this.isLeaving = true;
    if (!this.isIdle) return;
    const message: ToWorker = { kind: "leave" };
    this.#worker.postMessage(message);
  }

  /** Keeps the process alive until the thread is gone. */
  ref(): void {
    this.#worker.ref();
  }

  #finish(message: FromWorker): void {
    const pending = this.#pending.get(message.id);
    if (pending === undefined) return;
    this.#pending.delete(message.id);
    if (message.kind === "returned") pending.resolve(message.value);
    else pending.reject(rebuildError(message.error));
    if (!this.isIdle) return;
    if (this.isLeaving) this.leave();
    else this.#idleTimer = setTimeout(() => this.leave(), IDLE_MS).unref();
  }

  #end(exitCode: number): void {
    this.isLeaving = true;
    clearTimeout(this.#idleTimer);
    const uncaught = this.#uncaught;
    for (const { task, reject } of this.#pending.values()) {
      reject(
        uncaught instanceof WorkerNotFoundError
          ? uncaught
          : new ThreadDiedError(task, exitCode, uncaught),
      );
    }
    this.#pending.clear();
  }
}

let service: Service | undefined;

onReload(() => service?.leave());

/**
 * Runs a task of worker/tasks.ts in this JavaScript thread's service thread, beside its other
 * tasks. Rejects with the value that the task threw, ThreadDiedError or WorkerNotFoundError.
 *
 * @throws {DOMException} DataCloneError if the payload cannot be copied
 * @throws {ThreadLimitError} if there is no service thread and none can be made
 */
export function runInService(task: string, payload: unknown): Promise<unknown> {
  if (service === undefined || service.isLeaving) service = new Service();
  return service.run(task, payload);
}

/** True while this JavaScript thread's service thread has tasks. */
export function isServiceBusy(): boolean {
  return service?.isIdle === false;
}

/** Ends the service thread if it has no task. Resolves when it is gone. */
export async function endIdleService(): Promise<void> {
  if (service === undefined || !service.isIdle) return;
  service.ref();
  service.leave();
  await service.closed;
}
