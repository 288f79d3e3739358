/** What pool threads can run: name to lazily imported module with a `run(payload)`. */
import type { TaskTable } from "./serve.ts";

export const tasks = {} satisfies TaskTable;

export type TaskName = keyof typeof tasks;
