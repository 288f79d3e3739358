/**
 * A task of the pool (worker/tasks.ts: "load.warm"): makes a thread ready for a load of a remote
 * place while the manifest is still on its way. The thread imports the code of a load, and begins
 * to connect.
 */
import { warmConnections } from "../http/connections.ts";
import { warmSigner } from "../http/sign.ts";
import "../source/remote-source.ts";
import "./load-task.ts";

export interface WarmTask {
  /** The server's address. */
  readonly url: string;
  readonly connections: number;
}

export async function run({ url, connections }: WarmTask): Promise<void> {
  // Not awaited, because the thread can work already.
  void warmConnections(url, connections);
  await warmSigner();
}
