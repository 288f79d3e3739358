/** gVisor's own answers to 6,000 operations (test/data/gvisor/optrace.json), replayed: every one must be the same. */
import { expect, test } from "bun:test";
import { FileRange, MemoryFile } from "../../src/index.ts";

interface Operation {
  op: "alloc" | "incRef" | "decRef" | "settle" | "unique" | "shared";
  length: number;
  start: number;
  end: number;
  dir?: "bottomUp" | "topDown";
  huge?: boolean;
  result?: boolean | [number, number];
}

test("the trace's answers are gVisor's", async () => {
  const operations = (await Bun.file(new URL("../data/gvisor/optrace.json", import.meta.url)).json()) as Operation[];
  using file = MemoryFile.create({ expectHugepages: true });
  let compared = 0;
  for (const [i, step] of operations.entries()) {
    const range = new FileRange(step.start, step.end);
    if (step.op === "alloc") {
      const got = file.allocate(step.length, { direction: step.dir ?? "bottomUp", huge: step.huge ?? false });
      expect(`${i}: ${got}`).toBe(`${i}: ${range}`);
    } else if (step.op === "incRef") file.incRef(range);
    else if (step.op === "decRef") file.decRef(range);
    else if (step.op === "settle") await file.released();
    else if (step.op === "unique") expect(`${i}: ${file.hasUniqueRef(range)}`).toBe(`${i}: ${step.result}`);
    else {
      const shared = file.firstSharedRange(range);
      const want = Array.isArray(step.result) ? new FileRange(step.result[0], step.result[1]) : null;
      expect(`${i}: ${shared}`).toBe(`${i}: ${want}`);
    }
    compared++;
  }
  expect(compared).toBe(operations.length);
});
