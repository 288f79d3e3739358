/** Ends the threads that a JavaScript thread keeps for later work. */
import { terminateIdleWorkers } from "./pool.ts";
import { endIdleService } from "./service.ts";

/**
 * Ends the Workers and the service thread that this JavaScript thread keeps for later work, and
 * resolves when their threads are gone. Idle ones end by themselves after five seconds.
 */
export async function terminateIdleThreads(): Promise<void> {
  await Promise.all([terminateIdleWorkers(), endIdleService()]);
}
