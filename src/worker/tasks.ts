/** The tasks of pool threads and service threads: name to module with a `run(payload)`. */
import type { TaskTable } from "../threads/serve.ts";

export const tasks = {
  aio: () => import("../aio/worker-task.ts"),
  "file.serve": () => import("./serve-file.ts"),
  load: () => import("../load/load-task.ts"),
  "load.populate": () => import("../load/populate-task.ts"),
  "load.warm": () => import("../load/warm-task.ts"),
  "pressure.wait": () => import("../eviction/wait-task.ts"),
  "save.write": () => import("../save/write-task.ts"),
} satisfies TaskTable;
