/** A Worker that reads or writes stamps. */
import { parentPort, workerData } from "node:worker_threads";
import { type RunHandle, RunWord, readStamps, writeStamps } from "./stamps.ts";

const { role, run } = workerData as { role: "reader" | "writer"; run: RunHandle };
parentPort!.postMessage("started");
try {
  if (role === "reader") readStamps(run);
  else writeStamps(run);
} catch (error) {
  Atomics.add(run.words, RunWord.Errors, 1);
  console.error(role, error);
}
