/** Faults in the test process itself, in all its threads, for tests that look at promises and not at exit codes. */
import { setFaultHook } from "../../../ffi/index.ts";
import { terminateIdleThreads } from "../../../src/threads/pool.ts";
import { Faults, FAULTS_VARIABLE } from "./fault-control.ts";
import { hookWorkers, installFaultHook } from "./fault-hook.ts";

/** Installs the hook here and in Workers to come; `end` puts everything back. Threads of earlier tests are sent away. */
export async function beginFaults(): Promise<{ faults: Faults; end: () => Promise<void> }> {
  await terminateIdleThreads();
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
