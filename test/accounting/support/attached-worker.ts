/**
 * A thread that attaches to a file. `{ handle }` attaches. `{ decommit }` decommits a range, then
 * sets the first word of the gate to 1 and wakes its waiters. `{ usage: true }` answers with the
 * totals that this thread sees.
 */
import { type FileRange, MemoryFile, type MemoryFileHandle } from "../../../src/index.ts";

export interface Request {
  readonly handle?: MemoryFileHandle;
  readonly gate?: Int32Array<SharedArrayBuffer>;
  readonly decommit?: Pick<FileRange, "start" | "end">;
  readonly usage?: boolean;
}

declare const self: { onmessage: ((event: { data: Request }) => void) | null };
let file: MemoryFile | undefined;

self.onmessage = ({ data }) => {
  if (data.handle !== undefined) file = MemoryFile.attach(data.handle);
  if (data.decommit !== undefined) {
    file!.decommit(data.decommit);
    Atomics.store(data.gate!, 0, 1);
    Atomics.notify(data.gate!, 0);
  }
  if (data.usage === true) {
    file!.updateUsage();
    postMessage(file!.usage().totalBytes);
  } else if (data.handle !== undefined) postMessage("attached");
};
