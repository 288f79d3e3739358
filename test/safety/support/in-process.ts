/**
 * Faults in the test process itself, in all its threads, for tests of promises instead of exit
 * codes.
 */
import { expect } from "bun:test";
import { setFaultHook } from "../../../ffi/index.ts";
import { terminateIdleThreads } from "../../../src/threads/idle.ts";
import { threadCount } from "../../../src/threads/pool.ts";
import { Faults, FAULTS_VARIABLE } from "./fault-control.ts";
import { hookWorkers, installFaultHook } from "./fault-hook.ts";

/** A busy thread of an earlier test would return to the pool without the hook. */
async function sendThreadsAway(): Promise<void> {
  for (let waits = 0; threadCount().busy > 0 && waits < 1000; waits++) await Bun.sleep(5);
  expect(threadCount().busy).toBe(0);
  await terminateIdleThreads();
}

/**
 * Installs the hook here and in later Workers; `end` removes it. Threads of earlier tests are
 * ended.
 */
export async function beginFaults(): Promise<{ faults: Faults; end: () => Promise<void> }> {
  await sendThreadsAway();
  const faults = new Faults();
  process.env[FAULTS_VARIABLE] = faults.path;
  installFaultHook(faults.path);
  const unhookWorkers = hookWorkers();
  return {
    faults,
    end: async () => {
      unhookWorkers();
      setFaultHook(undefined);
      delete process.env[FAULTS_VARIABLE];
      await terminateIdleThreads();
      faults[Symbol.dispose]();
    },
  };
}
