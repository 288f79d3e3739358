/**
 * The fault hook that carries out a control file (fault-control.ts), and its way into Workers: they
 * get fault-preload.ts as a preload, because Bun does not give them the main thread's.
 */
import { fstatSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { isMainThread } from "node:worker_threads";
import { type Fault, setFaultHook } from "../../../ffi/index.ts";
import { PAGE_SIZE } from "../../../src/pages/units.ts";
import { CALL_NAMES, FaultAction, FaultWord, mapWords } from "./fault-control.ts";

const sleeper = new Int32Array(new SharedArrayBuffer(4));

/** Makes this thread's wrapped calls follow the control file. */
export function installFaultHook(path: string): void {
  const words = mapWords(path);
  setFaultHook((call, fd, offset, lengthBytes) => {
    const action = Atomics.load(words, FaultWord.Action);
    if (action === FaultAction.None) return undefined;
    const at = (CALL_NAMES as readonly string[]).indexOf(call);
    if (at < 0 || (words[FaultWord.Calls]! & (1 << at)) === 0) return undefined;
    if (words[FaultWord.OnlyPages] === 1 && !isPagesFile(fd, offset)) return undefined;
    if (!touches(words, offset, lengthBytes)) return undefined;
    if (action === FaultAction.ExitThread && isMainThread) return undefined;
    const number = Atomics.add(words, FaultWord.Seen, 1);
    if (number < words[FaultWord.From]! || number >= words[FaultWord.Until]!) return undefined;
    Atomics.add(words, FaultWord.Hits, 1);
    return hit(action, words[FaultWord.Value]!);
  });
}

function hit(action: number, value: number): Fault {
  if (action === FaultAction.Fail) return { errno: value };
  if (action === FaultAction.Shorten) return { maxBytes: value };
  if (action === FaultAction.Delay) Atomics.wait(sleeper, 0, 0, value);
  else if (action === FaultAction.ExitThread) process.exit(9);
  else if (action === FaultAction.Kill) {
    process.kill(process.pid, "SIGKILL");
    // The signal may be taken a moment later, by another thread: this one makes no further call.
    for (;;) Atomics.wait(sleeper, 0, 0, 1000);
  }
  return undefined;
}

function touches(words: Int32Array, offset: number, lengthBytes: number): boolean {
  const until = words[FaultWord.OffsetUntil]!;
  return (
    until === 0 ||
    (offset < until * PAGE_SIZE && offset + lengthBytes > words[FaultWord.OffsetFrom]! * PAGE_SIZE)
  );
}

/** Page contents: not the trailer, which opening a checkpoint reads. */
function isPagesFile(fd: number, offset: number): boolean {
  if (fd < 0 || !/\/pages[^/]*$/.test(readlinkSync(`/proc/self/fd/${fd}`))) return false;
  return offset === 0 || offset !== fstatSync(fd).size - PAGE_SIZE;
}

/** Makes Workers that this thread starts load the hook first. Returns a function that ends that. */
export function hookWorkers(): () => void {
  const PlainWorker = globalThis.Worker;
  globalThis.Worker = class extends PlainWorker {
    constructor(url: string | URL, options: WorkerOptions = {}) {
      super(url, {
        ...options,
        preload: [join(import.meta.dir, "fault-preload.ts")],
      } as WorkerOptions);
    }
  };
  return () => {
    globalThis.Worker = PlainWorker;
  };
}
