/** A Worker that makes one public call (public-calls.ts) and exits at one of its steps. */
import { setFaultHook } from "../../../ffi/index.ts";
import { setInterleavingHook } from "../../../src/control/interleave.ts";
import { MemoryFile, type MemoryFileHandle } from "../../../src/index.ts";
import { publicCalls } from "./public-calls.ts";

export interface Ending {
  readonly name: string;
  /** Which of the call's steps, from 0: system calls, and points between steps of a protocol. */
  readonly step: number;
  readonly handle: MemoryFileHandle;
  readonly directory: string;
}

const scope = globalThis as unknown as {
  onmessage: ((event: { data: Ending }) => void) | null;
  postMessage(steps: number): void;
};

scope.onmessage = async ({ data: { name, step, handle, directory } }) => {
  const file = MemoryFile.attach(handle);
  let steps = 0;
  const count = () => {
    if (steps++ === step) process.exit(9);
  };
  setFaultHook(() => {
    count();
    return undefined;
  });
  setInterleavingHook(count);
  await publicCalls[name]!({ file, directory });
  setFaultHook(undefined);
  setInterleavingHook(undefined);
  scope.postMessage(steps);
};
