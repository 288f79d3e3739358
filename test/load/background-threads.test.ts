/**
 * A background pass yields to the program: its threads have low priority, and the spare ones sleep
 * while the program waits.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { uringUnavailableReason } from "../../src/aio/index.ts";
import {
  mapAnonymous,
  niceOf,
  O_CREAT,
  O_RDWR,
  openFile,
  truncateFile,
  unmap,
} from "../../ffi/index.ts";
import type { LoadState } from "../../src/load/load-state.ts";
import { LoadWord, PAGES_PER_UNIT } from "../../src/load/load-tables.ts";
import type { LoadTask } from "../../src/load/load-task.ts";
import { GroupWord } from "../../src/load/group.ts";
import { LoadThreads } from "../../src/load/threads.ts";
import { fileSource, releaseFiles } from "../../src/source/file-source.ts";
import { type DemandingSourceOptions, READS_IN_FLIGHT } from "./support/demanding-source.ts";
import { contiguousMap, stateOf } from "./support/dense-state.ts";
import { coreOf, MemoryFile } from "../../src/file/memory-file.ts";
import { createControl } from "../../src/control/control.ts";
import { terminateIdleThreads } from "../../src/threads/idle.ts";
import { runInThread, threadCount } from "../../src/threads/pool.ts";
import { HUGE_PAGE_SIZE, PAGE_SIZE } from "../../src/pages/units.ts";

const UNITS = 2048;

let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "pgalloc-background-"));
});
afterAll(async () => {
  rmSync(directory, { recursive: true, force: true });
  await terminateIdleThreads();
});

/**
 * A page in each unit: 2048 take a twentieth of a second. `use` must not return while a thread
 * reads.
 */
async function withSparseLoad(
  use: (state: LoadState, shared: Omit<LoadTask, "role">) => Promise<void>,
  units = UNITS,
  engine: "cache" | "uring" = "cache",
): Promise<void> {
  const path = join(directory, "pages");
  const fd = openFile(path, O_RDWR | O_CREAT, 0o600);
  truncateFile(fd, units * PAGE_SIZE);
  const files = fileSource([
    { fd: -1, path },
    { fd, path },
  ]);
  const source = engine === "uring" ? ({ ...files, engine } as const) : files;
  const extents = Array.from({ length: units }, (_, unit) => [unit * PAGES_PER_UNIT, 1] as const);
  const state = stateOf(contiguousMap(extents), source);
  const base = mapAnonymous(units * HUGE_PAGE_SIZE);
  const entry = { control: createControl().buffer, state: state.handle, base };
  try {
    await use(state, { source, loads: [entry] });
  } finally {
    unmap(base, units * HUGE_PAGE_SIZE);
    releaseFiles(files);
  }
}

/** The threads of one load. */
function threadsOf(state: LoadState, { loads }: Omit<LoadTask, "role">): LoadThreads {
  return new LoadThreads([{ state, entry: loads[0]! }], fail);
}

/** A program that waits for one page after the other. */
async function wantUntil(state: LoadState, isEnough: () => boolean): Promise<void> {
  while (!isEnough()) {
    state.group.wake();
    await new Promise((resolve) => setImmediate(resolve));
  }
}

test("a spare thread reads nothing while pages are wanted, and the rest afterwards", () =>
  withSparseLoad(async (state, shared) => {
    const { words } = state;
    const total = words[LoadWord.PendingPages]!;
    const { done } = runInThread("load", { ...shared, role: "spare" }, { lowPriority: true });
    await wantUntil(state, () => words[LoadWord.LoadedPages]! > 0);
    const until = performance.now() + 500;
    await wantUntil(state, () => performance.now() > until);
    expect(words[LoadWord.LoadedPages]).toBeLessThan(total);
    await done;
    expect(words[LoadWord.LoadedPages]).toBe(total);
  }, 16 * UNITS));

test("a spare thread does not start while pages are wanted", () =>
  withSparseLoad(async (state, shared) => {
    const before = threadCount().busy;
    let most = 0;
    const run = threadsOf(state, shared).run();
    await wantUntil(state, () => {
      most = Math.max(most, threadCount().busy - before);
      return !state.isLoading;
    });
    await run;
    // One for each processor except the program's, and the demand thread if it started in time.
    const steady = Math.min(4, Math.max(1, availableParallelism() - 1));
    expect(most).toBeGreaterThanOrEqual(steady);
    expect(most).toBeLessThanOrEqual(steady + 1);
  }));

test("the demand thread starts although all read pages were wanted", () =>
  withSparseLoad(async (state, shared) => {
    const { words } = state;
    state.demands.demand(0, 16 * UNITS * PAGES_PER_UNIT);
    const run = threadsOf(state, shared).run();
    while (state.isLoading && Atomics.load(state.group.words, GroupWord.DemandServed) === 0)
      await Bun.sleep(1);
    expect(words[LoadWord.NextUnit]).toBe(0);
    expect(state.group.isServed).toBe(true);
    Atomics.store(words, LoadWord.Stop, 1);
    state.group.wake();
    await run;
  }, 16 * UNITS));

test.if(uringUnavailableReason() === null)(
  "pages wanted before a background thread began are read before the demand thread starts",
  () =>
    withSparseLoad(
      async (state, shared) => {
        state.demands.demand(0, UNITS * PAGES_PER_UNIT);
        await runInThread("load", { ...shared, role: "background" }, { lowPriority: true }).done;
        expect(state.words[LoadWord.DemandPages]).toBe(UNITS);
      },
      UNITS,
      "uring",
    ),
);

test("a background thread with an event loop yields while it begins units", () =>
  withSparseLoad(async (state, shared) => {
    const began = new SharedArrayBuffer(4);
    const options: DemandingSourceOptions = { group: state.handle.group, began };
    const module = new URL("./support/demanding-source.ts", import.meta.url).href;
    const source = { kind: "module", module, options } as const;
    await runInThread("load", { ...shared, source, role: "background" }).done;
    expect(state.words[LoadWord.LoadedPages]).toBe(UNITS);
    const [reads] = new Int32Array(began);
    expect(reads).toBeGreaterThan(0);
    expect(reads).toBeLessThan(READS_IN_FLIGHT / 4);
  }));

test("a thread that reads a page itself makes background threads yield as well", async () => {
  const path = join(directory, "own-reads");
  const source = MemoryFile.create();
  source.view(source.allocate(2 ** 26)).fill(1);
  await source.saveTo(path);
  source.destroy();
  using file = await MemoryFile.loadFrom(path, { background: true, queue: "inline" });
  const { group } = coreOf(file).loader!.state;
  const before = group.demand;
  file.awaitLoadSync({ start: 2 ** 26 - PAGE_SIZE, end: 2 ** 26 });
  expect(group.demand).toBeGreaterThan(before);
  await file.awaitLoad();
});

function fail(error: unknown): never {
  throw error;
}

test("background threads have low priority; demand and save threads do not", async () => {
  // In a process of its own, because a thread's priority stays low.
  const program = `
    import { readdirSync, readFileSync } from "node:fs";
    import { MemoryFile } from "${import.meta.dir}/../../src/index.ts";
    const source = MemoryFile.create();
    source.view(source.allocate(2 ** 25)).fill(1);
    await source.saveTo(process.argv[1]);
    source.destroy();
    const file = await MemoryFile.loadFrom(process.argv[1], { queue: "workers" });
    await file.saveTo(process.argv[1]);
    const stats = readdirSync("/proc/self/task").map((thread) =>
      readFileSync("/proc/self/task/" + thread + "/stat", "utf8"));
    const main = stats.filter((stat) => stat.startsWith(process.pid + " "));
    const nice = [...main, ...stats.filter((stat) => stat.includes("(Worker)"))].map((stat) =>
      Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[16]));
    console.log(JSON.stringify(nice));
    process.exit(0);`;
  const child = Bun.spawn([process.execPath, "-e", program, join(directory, "checkpoint")], {
    stderr: "inherit",
  });
  const nice = JSON.parse(await new Response(child.stdout).text()) as number[];
  const own = niceOf();
  const low = Math.max(own, 10);
  expect(nice[0]).toBe(own);
  const lowered = nice.slice(1).filter((value) => value === low).length;
  if (own >= low) return expect(lowered).toBe(nice.length - 1);
  const others = nice.slice(1).filter((value) => value === own).length;
  expect(lowered + others).toBe(nice.length - 1);
  expect(lowered).toBe(Math.min(4, Math.max(2, availableParallelism())));
  // The demand thread, and the threads of a save.
  expect(others).toBeGreaterThanOrEqual(2);
});
