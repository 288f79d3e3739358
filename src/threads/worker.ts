/** Entry file of a pool's Worker. */
import { serveTasks } from "./serve.ts";
import { tasks } from "./tasks.ts";

serveTasks(tasks);
