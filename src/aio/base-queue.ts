/**
 * The part that all queues share: slots for the operations, checks of arguments, and delivery of
 * completions. A subclass adds how a queued slot is started, waited for and cancelled.
 *
 * State of hot paths is in typed arrays: adding and delivering an operation creates no object.
 */
import { checkInteger } from "../../ffi/index.ts";
import { assert, DestroyedError } from "../errors/errors.ts";
import { Kind, OperationTable, SlotState } from "./operations.ts";
import { type Completions, type Queue, QueueBusyError } from "./queue.ts";

export abstract class BaseQueue implements Queue {
  readonly capacity: number;
  protected readonly operations: OperationTable;
  /** Stack of the numbers of free slots. */
  private readonly freeSlots: Int32Array;
  private freeCount: number;
  private readonly told: {
    count: number;
    readonly ids: Float64Array;
    readonly results: Float64Array;
  };
  private destroying: Promise<void> | undefined;
  private isWaiting = false;

  /** @throws {RangeError} if the capacity is not in [1, 4096] */
  protected constructor(capacity: number) {
    this.operations = new OperationTable(capacity);
    this.capacity = capacity;
    this.freeSlots = Int32Array.from({ length: capacity }, (_, i) => capacity - 1 - i);
    this.freeCount = capacity;
    this.told = {
      count: 0,
      ids: new Float64Array(capacity),
      results: new Float64Array(capacity),
    };
  }

  /** Makes the slot available to performers. Its operation is filled in and its state is queued. */
  protected abstract start(slot: number): void;
  /** Blocks until `countDone() >= minCompletions`; never blocks for 0. */
  protected abstract block(minCompletions: number): void;
  /**
   * Resolves when `countDone() >= minCompletions`, or when the queue is being destroyed. Keeps the
   * process alive.
   */
  protected abstract blockAsync(minCompletions: number): Promise<void>;
  /** Cancels operations that have not started. Resolves when none is running. Called once. */
  protected abstract stop(): Promise<void>;

  get inFlight(): number {
    return this.capacity - this.freeCount;
  }

  protected get isDestroyed(): boolean {
    return this.destroying !== undefined;
  }

  read(id: number, fd: number, address: number, lengthBytes: number, offset: number): void {
    const slot = this.freeSlot("read()");
    this.operations.set(slot, Kind.Read, id, fd, address, lengthBytes, offset);
    this.enqueue(slot);
  }

  write(id: number, fd: number, address: number, lengthBytes: number, offset: number): void {
    const slot = this.freeSlot("write()");
    this.operations.set(slot, Kind.Write, id, fd, address, lengthBytes, offset);
    this.enqueue(slot);
  }

  readv(id: number, fd: number, iovecs: Float64Array, count: number, offset: number): void {
    const slot = this.freeSlot("readv()");
    this.operations.setVector(slot, Kind.Readv, id, fd, iovecs, count, offset);
    this.enqueue(slot);
  }

  writev(id: number, fd: number, iovecs: Float64Array, count: number, offset: number): void {
    const slot = this.freeSlot("writev()");
    this.operations.setVector(slot, Kind.Writev, id, fd, iovecs, count, offset);
    this.enqueue(slot);
  }

  /** The slot of the next operation. It stays free if the operation's arguments are refused. */
  private freeSlot(method: string): number {
    this.requireLive(method);
    if (this.freeCount === 0) {
      throw new RangeError(
        `Cannot add an operation: ${this.capacity} are in flight, the queue's capacity; wait for ` +
          "one first",
      );
    }
    return this.freeSlots[this.freeCount - 1]!;
  }

  private enqueue(slot: number): void {
    this.freeCount--;
    Atomics.store(this.operations.state, slot, SlotState.Queued);
    this.start(slot);
  }

  wait(minCompletions: number): Completions {
    this.checkWait(minCompletions, "wait()");
    this.block(minCompletions);
    return this.tell();
  }

  async waitAsync(minCompletions: number): Promise<Completions> {
    this.checkWait(minCompletions, "waitAsync()");
    this.isWaiting = true;
    try {
      await this.blockAsync(minCompletions);
    } finally {
      this.isWaiting = false;
    }
    this.requireLive("waitAsync()");
    return this.tell();
  }

  private checkWait(minCompletions: number, method: string): void {
    this.requireLive(method);
    if (this.isWaiting) throw new QueueBusyError();
    // A wait for more operations than are in flight would never end.
    checkInteger("minCompletions", minCompletions, 0, this.inFlight);
  }

  /** How many operations are done and not yet delivered. */
  protected countDone(): number {
    const { state } = this.operations;
    let count = 0;
    for (let slot = 0; slot < this.capacity; slot++)
      if (Atomics.load(state, slot) === SlotState.Done) count++;
    return count;
  }

  private tell(): Completions {
    const { operations, told } = this;
    let count = 0;
    for (let slot = 0; slot < this.capacity; slot++) {
      if (Atomics.load(operations.state, slot) !== SlotState.Done) continue;
      told.ids[count] = operations.id[slot]!;
      told.results[count++] = operations.result[slot]!;
      Atomics.store(operations.state, slot, SlotState.Free);
      this.freeSlots[this.freeCount++] = slot;
    }
    const { freeCount, capacity } = this;
    assert(freeCount <= capacity, () => `${freeCount} of ${capacity} slots are free`);
    told.count = count;
    return told;
  }

  /** Ends a slot's operation. Precondition: the caller runs it. */
  protected complete(slot: number, result: number): void {
    this.operations.result[slot] = result;
    Atomics.store(this.operations.state, slot, SlotState.Done);
  }

  destroy(): Promise<void> {
    this.destroying ??= this.stop();
    return this.destroying;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.destroy();
  }

  private requireLive(method: string): void {
    if (this.destroying !== undefined) throw new DestroyedError("an aio queue", method);
  }
}
