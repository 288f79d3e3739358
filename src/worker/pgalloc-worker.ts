/**
 * Entry file of the Workers: `pgalloc/worker`. A program that is bundled needs it as an entry point
 * of its own (docs/deploying.md).
 */
import { hintTimeSlice, isUsable } from "../../ffi/index.ts";
import { serveTasks } from "../threads/serve.ts";
import { tasks } from "./tasks.ts";

serveTasks(tasks);
// The thread that started this one lent it a time slice (threads/start-worker.ts).
if (isUsable) hintTimeSlice(0);
