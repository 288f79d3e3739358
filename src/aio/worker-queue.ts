/**
 * A queue whose operations Workers perform with ordinary blocking calls. It works everywhere, and
 * is the fastest for files in the page cache. The Workers sleep on a word of the shared table
 * (operations.ts).
 *
 * A Worker that dies (terminate, process.exit) leaves its number in the state of the slot that it
 * was performing. A waiter checks from time to time that the kernel threads of all Workers still
 * exist. If one does not, nothing touches that operation's memory any more. The operation ends with
 * EOWNERDEAD, because it is not known how far it came, and a new Worker replaces the dead one.
 * Replacements are limited: when no Worker lives and none may be started, the waiting thread does
 * the work itself. If the Workers' entry file is missing, every wait fails.
 */
import { errnoNumber } from "../../ffi/index.ts";
import { isThreadAlive } from "../threads/thread.ts";
import { ThreadDiedError, WorkerNotFoundError } from "../threads/errors.ts";
import { runInThread } from "../threads/pool.ts";
import { BaseQueue } from "./base-queue.ts";
import { MAX_THREADS, QueueWord, SlotState } from "./operations.ts";
import { perform } from "./perform.ts";
import { type AioTask, finish, take } from "./worker-task.ts";

const LIVENESS_CHECK_MS = 100;
const MAX_DEATHS = 64;
const EOWNERDEAD = errnoNumber("EOWNERDEAD");
/** The waiting thread's number as a performer. */
const OWNER = MAX_THREADS;

/** One Worker of the queue. The Worker that replaces it has another object. */
interface QueueWorker {
  readonly ended: Promise<void>;
}

export class WorkerQueue extends BaseQueue {
  private readonly threads: number;
  private readonly workers: (QueueWorker | undefined)[] = [];
  private deaths = 0;
  /**
   * The error with which a Worker ended, other than its death, or the reason why none can be
   * started. Every later wait throws it.
   */
  private failure: unknown;

  /** Precondition: 1 <= threads <= MAX_THREADS. The Workers start with the first operation. */
  constructor(capacity: number, threads: number) {
    super(capacity);
    this.threads = Math.min(threads, capacity);
  }

  protected override start(): void {
    const { words } = this.operations;
    for (let thread = this.workers.length; thread < this.threads; thread++)
      this.startThread(thread);
    Atomics.add(words, QueueWord.Added, 1);
    Atomics.notify(words, QueueWord.Added, 1);
  }

  private startThread(thread: number): void {
    const task: AioTask = { operations: this.operations.buffer, thread };
    const worker: QueueWorker = {
      ended: runInThread("aio", task, { ref: false }).done.then(
        () => undefined,
        (error: unknown) => {
          if (!(error instanceof ThreadDiedError)) this.failure ??= error;
          if (error instanceof WorkerNotFoundError) this.deaths = MAX_DEATHS;
          if (this.workers[thread] === worker) this.replace(thread);
        },
      ),
    };
    this.workers[thread] = worker;
  }

  /** Ends the operation of a dead Worker and starts another Worker in its place. */
  private replace(thread: number): void {
    const { state, words } = this.operations;
    Atomics.store(words, QueueWord.Threads + thread, 0);
    for (let slot = 0; slot < this.capacity; slot++) {
      if (Atomics.load(state, slot) === SlotState.Running + thread)
        finish(this.operations, slot, -EOWNERDEAD);
    }
    this.workers[thread] = undefined;
    if (!this.isDestroyed && ++this.deaths <= MAX_DEATHS) this.startThread(thread);
    this.wakeOwner();
  }

  /** Checks that Workers live. True if at least one is known to live. */
  private checkThreads(): boolean {
    let alive = false;
    for (let thread = 0; thread < this.threads; thread++) {
      const id = Atomics.load(this.operations.words, QueueWord.Threads + thread);
      if (id === 0) continue;
      if (isThreadAlive(id)) alive = true;
      else this.replace(thread);
    }
    return alive;
  }

  private wakeOwner(): void {
    Atomics.add(this.operations.words, QueueWord.Completed, 1);
    Atomics.notify(this.operations.words, QueueWord.Completed);
  }

  protected override block(minCompletions: number): void {
    const { words } = this.operations;
    for (;;) {
      const seen = Atomics.load(words, QueueWord.Completed);
      if (this.failure !== undefined) throw this.failure;
      if (this.countDone() >= minCompletions) return;
      if (
        Atomics.wait(words, QueueWord.Completed, seen, LIVENESS_CHECK_MS) === "timed-out" &&
        !this.checkThreads()
      ) {
        this.performOne();
      }
    }
  }

  protected override async blockAsync(minCompletions: number): Promise<void> {
    const { words } = this.operations;
    // It also keeps the process alive, which a pending waitAsync does not.
    const liveness = setInterval(() => {
      if (!this.checkThreads()) this.performOne();
    }, LIVENESS_CHECK_MS);
    try {
      for (;;) {
        const seen = Atomics.load(words, QueueWord.Completed);
        if (this.failure !== undefined) throw this.failure;
        if (this.isDestroyed || this.countDone() >= minCompletions) return;
        const wait = Atomics.waitAsync(words, QueueWord.Completed, seen);
        if (wait.async) await wait.value;
      }
    } finally {
      clearInterval(liveness);
    }
  }

  private performOne(): void {
    const slot = take(this.operations, OWNER);
    if (slot >= 0) finish(this.operations, slot, perform(this.operations, slot));
  }

  protected override async stop(): Promise<void> {
    const { state, words } = this.operations;
    Atomics.store(words, QueueWord.Stop, 1);
    for (let slot = 0; slot < this.capacity; slot++) {
      Atomics.compareExchange(state, slot, SlotState.Queued, SlotState.Free);
    }
    Atomics.add(words, QueueWord.Added, 1);
    Atomics.notify(words, QueueWord.Added);
    this.wakeOwner();
    // The Workers do not keep the process alive. The memory that they write to must not go before
    // they have ended.
    const keepAlive = setInterval(() => undefined, LIVENESS_CHECK_MS);
    await Promise.all(this.workers.map((worker) => worker?.ended));
    clearInterval(keepAlive);
  }
}
