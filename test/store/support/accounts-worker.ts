/** Transfers until it is stopped, and never comes back to its event loop before. */
import { parentPort, workerData } from "node:worker_threads";
import { Store, type StoreHandle } from "../../../src/data/index.ts";
import { openAccounts, transfer } from "./accounts.ts";
import { randomOf } from "./stamps.ts";

const { handle, stop, seed } = workerData as {
  handle: StoreHandle;
  stop: Int32Array;
  seed: number;
};
const store = Store.attach(handle);
const accounts = openAccounts(store);
const random = randomOf(seed);
parentPort!.postMessage("started");
while (Atomics.load(stop, 0) === 0) transfer(store, accounts, random);
