/**
 * A Worker's side of the pool: waits for tasks, runs them and tells how they ended. The messages in
 * both directions are declared here.
 *
 * A task may block its thread (Atomics.wait) and then gets no message. Its caller needs another way
 * to stop it, such as a word in shared memory.
 */
import { lowerPriority } from "../../ffi/index.ts";
import { type ToldError, tellError } from "./errors.ts";

export interface TaskModule {
  run(payload: never): unknown;
}

/** Task name to the import of its module: lazily, so that a Worker loads only what it runs. */
export type TaskTable = Readonly<Record<string, () => Promise<TaskModule>>>;

/**
 * Pool to Worker. `nice`: the thread's from now on, if that is more. `leave`: exit when what runs
 * has ended.
 */
export type ToWorker =
  | {
      readonly kind: "run";
      readonly id: number;
      readonly task: string;
      readonly payload: unknown;
      readonly nice: number;
    }
  | { readonly kind: "leave" };

/** Worker to pool. `id` is the one of the `run` message. */
export type FromWorker =
  | { readonly kind: "returned"; readonly id: number; readonly value: unknown }
  | { readonly kind: "threw"; readonly id: number; readonly error: ToldError };

/** The part of a Worker's global scope that is used here. */
interface WorkerScope {
  onmessage: ((event: { data: ToWorker }) => void) | null;
  postMessage(message: FromWorker): void;
}

/** Makes this Worker serve the tasks of `table`. Called once, by the Worker's entry file. */
export function serveTasks(table: TaskTable): void {
  const scope = globalThis as unknown as WorkerScope;
  scope.onmessage = ({ data }) => {
    // process.exit ends this Worker only, after its messages are out; terminate() from outside is
    // the rougher way.
    if (data.kind === "leave") process.exit(0);
    if (data.nice > 0) lowerPriority(data.nice);
    void runTask(table, data).then((answer) => answerWith(scope, answer));
  };
}

async function runTask(table: TaskTable, message: ToWorker & { kind: "run" }): Promise<FromWorker> {
  const { id, task, payload } = message;
  try {
    const load = Object.hasOwn(table, task) ? table[task] : undefined;
    if (load === undefined)
      throw new TypeError(`Expected a task of this pool, got ${JSON.stringify(task)}`);
    const module = await load();
    return { kind: "returned", id, value: await module.run(payload as never) };
  } catch (error) {
    return { kind: "threw", id, error: tellError(error) };
  }
}

/** A return value that cannot be copied is the task's error. */
function answerWith(scope: WorkerScope, answer: FromWorker): void {
  try {
    scope.postMessage(answer);
  } catch (error) {
    scope.postMessage({ kind: "threw", id: answer.id, error: tellError(error) });
  }
}
