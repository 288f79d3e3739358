/** What pool threads can run: name to lazily imported module with a `run(payload)`. */
import type { TaskTable } from "../threads/serve.ts";

export const tasks = {
  aio: () => import("../aio/worker-task.ts"),
  load: () => import("../load/load-task.ts"),
  "pressure.wait": () => import("../eviction/wait-task.ts"),
  "save.write": () => import("../save/write-task.ts"),
} satisfies TaskTable;
