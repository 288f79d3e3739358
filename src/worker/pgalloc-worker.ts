/**
 * Entry file of the Workers: `pgalloc/worker`. A program that is bundled needs it as an entry point
 * of its own (docs/deploying.md).
 */
import { hintTimeSlice, isUsable } from "../../ffi/index.ts";
import { serveTasks } from "../threads/serve.ts";
import { tasks } from "./tasks.ts";

serveTasks(tasks);
// The thread that starts a Worker changes its time slice (threads/start-worker.ts): sets it back.
if (isUsable) hintTimeSlice(0);
