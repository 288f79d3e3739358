/**
 * A queue whose operations are done by Workers with ordinary blocking calls: the one that works
 * everywhere, and the fastest for files that are in the page cache. The Workers sleep on a word of
 * the shared table (operations.ts).
 *
 * A Worker that dies (terminate, process.exit) leaves its number in the state of the slot that it
 * ran. A waiter checks now and then whether the kernel threads of all Workers still exist. If
 * one does not, nothing touches that operation's memory any more: it ends with EOWNERDEAD (how far
 * it came is not known), and another Worker takes the dead one's place. If no Worker lives, since
 * as many have died as are allowed, the thread that waits does the work itself. Where the Workers'
 * entry file is missing every wait fails.
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
/** The waiting thread's own number as a performer. */
const OWNER = MAX_THREADS;

/** One Worker's stay in the queue; another object once it has been replaced. */
interface Stay {
  readonly ended: Promise<void>;
}

export class WorkerQueue extends BaseQueue {
  private readonly threads: number;
  private readonly stays: (Stay | undefined)[] = [];
  private deaths = 0;
  /**
   * What a Worker threw that was not its death, or that there is none to start: told by every wait
   * from then on.
   */
  private failure: unknown;

  /** Precondition: 1 <= threads <= MAX_THREADS. The Workers start with the first operation. */
  constructor(capacity: number, threads: number) {
    super(capacity);
    this.threads = Math.min(threads, capacity);
  }

  protected override start(): void {
    const { words } = this.operations;
    for (let thread = this.stays.length; thread < this.threads; thread++) this.startThread(thread);
    Atomics.add(words, QueueWord.Added, 1);
    Atomics.notify(words, QueueWord.Added, 1);
  }

  private startThread(thread: number): void {
    const task: AioTask = { operations: this.operations.buffer, thread };
    const stay: Stay = {
      ended: runInThread("aio", task, { ref: false }).done.then(
        () => undefined,
        (error: unknown) => {
          if (!(error instanceof ThreadDiedError)) this.failure ??= error;
          if (error instanceof WorkerNotFoundError) this.deaths = MAX_DEATHS;
          if (this.stays[thread] === stay) this.replace(thread);
        },
      ),
    };
    this.stays[thread] = stay;
  }

  /** Ends what a dead Worker ran, and starts another one in its place. */
  private replace(thread: number): void {
    const { state, words } = this.operations;
    Atomics.store(words, QueueWord.Threads + thread, 0);
    for (let slot = 0; slot < this.capacity; slot++) {
      if (Atomics.load(state, slot) === SlotState.Running + thread)
        finish(this.operations, slot, -EOWNERDEAD);
    }
    this.stays[thread] = undefined;
    if (!this.isDestroyed && ++this.deaths <= MAX_DEATHS) this.startThread(thread);
    this.wakeOwner();
  }

  /** Looks for dead Workers. True if at least one is known to live. */
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
    // Also what keeps the process alive: a pending waitAsync does not.
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
    // The Workers do not keep the process alive; what they still write to must not go before they
    // have ended.
    const keepAlive = setInterval(() => undefined, LIVENESS_CHECK_MS);
    await Promise.all(this.stays.map((stay) => stay?.ended));
    clearInterval(keepAlive);
  }
}
