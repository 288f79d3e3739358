/**
 * A queue that works in the thread that waits, in the order of adding: no thread, no start-up cost,
 * no concurrency. `wait(n)` performs the n oldest operations. `waitAsync(n)` performs one in each
 * turn of the event loop, so other work runs in between. Destroy cancels all operations that no
 * wait has performed.
 */
import { BaseQueue } from "./base-queue.ts";
import { SlotState } from "./operations.ts";
import { perform } from "./perform.ts";

export class InlineQueue extends BaseQueue {
  /** Ring of queued slots, oldest at `first`. */
  private readonly order: Int32Array;
  private first = 0;
  private queued = 0;

  constructor(capacity: number) {
    super(capacity);
    this.order = new Int32Array(capacity);
  }

  protected override start(slot: number): void {
    this.order[(this.first + this.queued++) % this.capacity] = slot;
  }

  private performNext(): void {
    const slot = this.order[this.first]!;
    this.first = (this.first + 1) % this.capacity;
    this.queued--;
    this.operations.state[slot] = SlotState.Running;
    this.complete(slot, perform(this.operations, slot));
  }

  protected override block(minCompletions: number): void {
    for (let done = this.countDone(); done < minCompletions; done++) this.performNext();
  }

  protected override async blockAsync(minCompletions: number): Promise<void> {
    for (let done = this.countDone(); done < minCompletions && !this.isDestroyed; done++) {
      await new Promise((resolve) => setImmediate(resolve));
      if (!this.isDestroyed) this.performNext();
    }
  }

  protected override async stop(): Promise<void> {
    this.queued = 0;
  }
}
