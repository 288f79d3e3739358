/**
 * Makes public calls while this process has no threads, or few descriptors. Prints a line for each
 * call that failed without a typed error, or left something open, and then how many succeeded.
 *
 *     threads                 no new thread; not as root, who has no limit
 *     descriptors 0,1,2,...   so many descriptors are left: run it with a low limit
 */
import { closeSync, mkdtempSync, openSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MemoryFile, terminateIdleThreads } from "../../../src/index.ts";
import { isServiceBusy } from "../../../src/threads/service.ts";
import { threadCount } from "../../../src/threads/pool.ts";
import { namedDescriptors } from "./descriptors.ts";
import { prepareBase, publicCalls } from "./public-calls.ts";

const [what, levels = ""] = process.argv.slice(2);
const counts = { succeeded: 0, failed: 0 };

/** Runs a call with few descriptors. Prints what is not a typed error, or stays open. */
async function attempt(name: string, call: () => unknown, left?: number): Promise<void> {
  const before = namedDescriptors();
  const restore = left === undefined ? () => {} : takeDescriptors(left);
  let failure: unknown;
  try {
    await call();
    counts.succeeded++;
  } catch (error) {
    counts.failed++;
    failure = error;
  } finally {
    restore();
  }
  const { code } = (failure ?? { code: "" }) as { code?: unknown };
  if (typeof code !== "string") console.log(`${name}: ${String(failure)}`);
  const opened = () => namedDescriptors().filter((path) => !before.includes(path));
  let leaked = opened();
  for (let i = 0; i < 2000 && leaked.length > 0; i++, leaked = opened()) await Bun.sleep(5);
  if (leaked.length > 0) console.log(`${name}: open ${leaked.join(", ")}`);
}

/** All descriptors but `left`. Returns what closes them. */
function takeDescriptors(left: number): () => void {
  const taken: number[] = [];
  try {
    for (;;) taken.push(openSync("/dev/null", "r"));
  } catch {
    for (const fd of taken.splice(0, left)) closeSync(fd);
  }
  return () => {
    for (const fd of taken) closeSync(fd);
  };
}

/** A Worker that still starts would not find descriptors, which ends the process. */
async function allThreadsEnd(): Promise<void> {
  do {
    await Bun.sleep(1);
    await terminateIdleThreads();
  } while (threadCount().busy > 0 || isServiceBusy());
}

async function withoutDescriptors(directory: string, left: number): Promise<void> {
  for (const [name, call] of Object.entries(publicCalls)) {
    using file = MemoryFile.create();
    const once = () => call({ file, directory });
    // Modules are loaded before, and threads start anew.
    await once();
    await allThreadsEnd();
    await attempt(`${name}, ${left} left`, once, left);
    await once();
  }
}

async function withoutThreads(directory: string): Promise<void> {
  using file = MemoryFile.create();
  for (const call of Object.values(publicCalls)) await call({ file, directory });
  await terminateIdleThreads();
  // The engine's own threads have started: it aborts if it cannot start them.
  Bun.gc(true);
  Bun.spawnSync(["prlimit", "--nproc=1", "--pid", String(process.pid)]);
  for (const [name, call] of Object.entries(publicCalls))
    await attempt(name, () => call({ file, directory }));
}

const directory = mkdtempSync(join(tmpdir(), "pgalloc-scarce-"));
await prepareBase(directory);
if (what === "threads") await withoutThreads(directory);
else for (const left of levels.split(",")) await withoutDescriptors(directory, Number(left));
rmSync(directory, { recursive: true });
console.log(JSON.stringify(counts));
process.exit(0);
