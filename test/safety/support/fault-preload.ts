/** Loaded first by every thread of a program under test (`bun --preload`): see fault-hook.ts. */
import { FAULTS_VARIABLE } from "./fault-control.ts";
import { hookWorkers, installFaultHook } from "./fault-hook.ts";

installFaultHook(process.env[FAULTS_VARIABLE]!);
hookWorkers();
