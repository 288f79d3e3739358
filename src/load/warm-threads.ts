/** Starts the threads of a load from a remote place before its pages are known. */
import { BACKGROUND_REQUESTS, DEMAND_READS } from "../source/remote-source.ts";
import { runInThread } from "../threads/pool.ts";
import { BACKGROUND_THREADS } from "./threads.ts";
import type { WarmTask } from "./warm-task.ts";

/** Of many restores that begin together, one warms threads. admission.ts limits the others. */
let isWarming = false;

/**
 * Resolves when the threads are idle again, so that the load gets them. `url` is the server's.
 * After a failure here, the load tries again and reports.
 */
export async function warmThreads(url: string): Promise<void> {
  if (isWarming) return;
  isWarming = true;
  const background = Array.from({ length: BACKGROUND_THREADS }, () =>
    warm({ url, connections: BACKGROUND_REQUESTS / 4 }, true),
  );
  await Promise.allSettled([warm({ url, connections: DEMAND_READS / 2 }, false), ...background]);
  isWarming = false;
}

async function warm(task: WarmTask, lowPriority: boolean): Promise<void> {
  await runInThread("load.warm", task, { ref: false, lowPriority }).done;
}
