/**
 * gVisor's own answers to 6,000 operations (test/data/gvisor/optrace.json), replayed: each must be
 * the same.
 */
import { expect, test } from "bun:test";
import { replayTrace, type TraceOperation } from "../support/replay-trace.ts";

test("MemoryFile gives gVisor's answers to a trace", async () => {
  const operations = (await Bun.file(
    new URL("../data/gvisor/optrace.json", import.meta.url),
  ).json()) as TraceOperation[];
  expect(await replayTrace(operations)).toBe(operations.length);
  expect(operations.length).toBe(6000);
});
