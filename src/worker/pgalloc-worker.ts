/**
 * Entry file of the Workers: `pgalloc/worker`, an entry point of its own where a program is bundled
 * (docs/deploying.md).
 */
import { hintTimeSlice, isUsable } from "../../ffi/index.ts";
import { serveTasks } from "../threads/serve.ts";
import { tasks } from "./tasks.ts";

serveTasks(tasks);
// The thread started with another one (threads/start-worker.ts).
if (isUsable) hintTimeSlice(0);
