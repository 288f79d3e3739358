/**
 * Replays operations with gVisor's answers (the form of test/data/gvisor/optrace.json) on a
 * MemoryFile.
 */
import { expect } from "bun:test";
import { FileRange, MemoryFile } from "../../src/index.ts";

export interface TraceOperation {
  readonly op: "alloc" | "incRef" | "decRef" | "settle" | "unique" | "shared";
  readonly length: number;
  readonly start: number;
  readonly end: number;
  readonly dir?: "bottomUp" | "topDown";
  readonly huge?: boolean;
  readonly result?: boolean | [number, number] | null;
}

/** Every answer must be the same. Returns the number of operations. */
export async function replayTrace(operations: readonly TraceOperation[]): Promise<number> {
  using file = MemoryFile.create({ expectHugepages: true });
  for (const [i, step] of operations.entries()) {
    const range = new FileRange(step.start, step.end);
    if (step.op === "alloc") {
      const got = file.allocate(step.length, {
        direction: step.dir ?? "bottomUp",
        huge: step.huge ?? false,
      });
      expect(`${i}: ${got}`).toBe(`${i}: ${range}`);
    } else if (step.op === "incRef") file.incRef(range);
    else if (step.op === "decRef") file.decRef(range);
    else if (step.op === "settle") await file.released();
    else if (step.op === "unique")
      expect(`${i}: ${file.hasUniqueRef(range)}`).toBe(`${i}: ${step.result}`);
    else {
      const shared = file.firstSharedRange(range);
      const want = Array.isArray(step.result)
        ? new FileRange(step.result[0], step.result[1])
        : null;
      expect(`${i}: ${shared}`).toBe(`${i}: ${want}`);
    }
  }
  return operations.length;
}
