/**
 * A task of the pool (worker/tasks.ts: "load.warm"): makes a thread ready for a load of a remote
 * place while the manifest is still on its way. The thread imports what a load needs, and begins to
 * connect.
 */
import { warmConnections } from "../http/connections.ts";
import { warmSigner } from "../http/sign.ts";
import "../source/remote-source.ts";
import "./load-task.ts";

export interface WarmTask {
  /** Of the server. */
  readonly url: string;
  readonly connections: number;
}

export async function run({ url, connections }: WarmTask): Promise<void> {
  // Not awaited: the thread is of use already.
  void warmConnections(url, connections);
  await warmSigner();
}
