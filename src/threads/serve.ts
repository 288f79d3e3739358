/**
 * The Worker's side of the pool: it waits for tasks, runs them and reports how they ended. The
 * messages of both directions are declared here.
 *
 * A task may block its thread (Atomics.wait) and receives no message then. Its caller needs another
 * way to stop it, such as a word in shared memory.
 */
import { lowerPriority } from "../../ffi/index.ts";
import { type ToldError, tellError } from "./errors.ts";

export interface TaskModule {
  run(payload: never): unknown;
}

/**
 * Task name to the import of its module. Imports are lazy, so a Worker loads only the tasks it
 * runs.
 */
export type TaskTable = Readonly<Record<string, () => Promise<TaskModule>>>;

/**
 * Pool to Worker. `nice`: raises the thread's nice value to this, for good. `leave`: exit after the
 * running task.
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

/** The part of a Worker's global scope that this file uses. */
interface WorkerScope {
  onmessage: ((event: { data: ToWorker }) => void) | null;
  postMessage(message: FromWorker): void;
}

/** Makes this Worker serve the tasks of `table`. The Worker's entry file calls it once. */
export function serveTasks(table: TaskTable): void {
  const scope = globalThis as unknown as WorkerScope;
  scope.onmessage = ({ data }) => {
    // process.exit ends only this Worker, after its messages are sent. terminate() from outside may
    // lose them.
    if (data.kind === "leave") process.exit(0);
    if (data.nice > 0) lowerPriority(data.nice);
    void runTask(table, data).then((answer) => answerWith(scope, answer));
  };
}

/**
 * Rejects, and so ends the thread, if the task's module cannot be read, as without descriptors: the
 * engine would not try again.
 */
async function runTask(table: TaskTable, message: ToWorker & { kind: "run" }): Promise<FromWorker> {
  const { id, task, payload } = message;
  const load = Object.hasOwn(table, task) ? table[task] : undefined;
  const module = await load?.();
  try {
    if (module === undefined)
      throw new TypeError(`Expected a task of this pool, got ${JSON.stringify(task)}`);
    return { kind: "returned", id, value: await module.run(payload as never) };
  } catch (error) {
    return { kind: "threw", id, error: tellError(error) };
  }
}

/** Posts an answer. A return value that cannot be copied becomes the task's error. */
function answerWith(scope: WorkerScope, answer: FromWorker): void {
  try {
    scope.postMessage(answer);
  } catch (error) {
    scope.postMessage({ kind: "threw", id: answer.id, error: tellError(error) });
  }
}
