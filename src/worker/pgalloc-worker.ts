/** Entry file of a pool's Worker: `pgalloc/worker`, an entry point of its own where a program is bundled (docs/deploying.md). */
import { hintTimeSlice } from "../../ffi/index.ts";
import { serveTasks } from "../threads/serve.ts";
import { tasks } from "./tasks.ts";

serveTasks(tasks);
// It began with another one (pool.ts).
hintTimeSlice(0);
