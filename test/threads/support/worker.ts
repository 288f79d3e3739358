import { serveTasks } from "../../../src/threads/serve.ts";
import { testTasks } from "./tasks.ts";

serveTasks(testTasks);
