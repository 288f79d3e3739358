/**
 * The task of a WorkerQueue's Worker (worker/tasks.ts: "aio"): takes queued slots and performs them
 * until the queue stops. It blocks its thread, so the queue reaches it only through the table's
 * words.
 */
import { THREAD_ID } from "../threads/thread.ts";
import { OperationTable, QueueWord, SlotState } from "./operations.ts";
import { perform } from "./perform.ts";

export interface AioTask {
  readonly operations: SharedArrayBuffer;
  /** The Worker's number in the queue, below MAX_THREADS. */
  readonly thread: number;
}

export function run(task: AioTask): void {
  const operations = new OperationTable(task.operations);
  const { words } = operations;
  Atomics.store(words, QueueWord.Threads + task.thread, THREAD_ID);
  for (;;) {
    const seen = Atomics.load(words, QueueWord.Added);
    if (Atomics.load(words, QueueWord.Stop) !== 0) break;
    const slot = take(operations, task.thread);
    if (slot < 0) Atomics.wait(words, QueueWord.Added, seen);
    else finish(operations, slot, perform(operations, slot));
  }
  Atomics.store(words, QueueWord.Threads + task.thread, 0);
}

/** Takes a queued slot; -1 if there is none. The search starts after the last slot taken. */
export function take(operations: OperationTable, thread: number): number {
  const { state, words, capacity } = operations;
  const from = Atomics.load(words, QueueWord.Cursor);
  for (let i = 0; i < capacity; i++) {
    const slot = (from + i) % capacity;
    if (Atomics.load(state, slot) !== SlotState.Queued) continue;
    const running = SlotState.Running + thread;
    if (Atomics.compareExchange(state, slot, SlotState.Queued, running) !== SlotState.Queued)
      continue;
    Atomics.store(words, QueueWord.Cursor, (slot + 1) % capacity);
    return slot;
  }
  return -1;
}

export function finish(operations: OperationTable, slot: number, result: number): void {
  operations.result[slot] = result;
  Atomics.store(operations.state, slot, SlotState.Done);
  Atomics.add(operations.words, QueueWord.Completed, 1);
  Atomics.notify(operations.words, QueueWord.Completed);
}
