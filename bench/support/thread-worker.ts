/** A Worker of bench/threads.ts (thread-work.ts). */
import { MemoryFile, type MemoryFileHandle } from "../../src/index.ts";
import { awaitRandomPages, replayPairs, type Work } from "./thread-work.ts";

const scope = globalThis as unknown as {
  onmessage: ((event: { data: { handle: MemoryFileHandle; work: Work } }) => void) | null;
  postMessage(message: unknown): void;
};

scope.onmessage = async ({ data: { handle, work } }) => {
  const ready = () => scope.postMessage("ready");
  if (work.kind === "pairs") {
    scope.postMessage(replayPairs(handle, work, ready));
    return;
  }
  const file = MemoryFile.attach(handle);
  ready();
  const samples = await awaitRandomPages(file, work);
  Atomics.store(work.done, 0, 1);
  scope.postMessage(samples);
};
