/** What a background pass leaves to the program: its threads have low priority, and the spare ones sleep while it waits. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { closeFile, mapAnonymous, niceOf, O_CREAT, O_RDWR, openFile, truncateFile, unmap } from "../../ffi/index.ts";
import { LoadState, LoadWord, PAGES_PER_UNIT } from "../../src/load/load-state.ts";
import type { LoadTask } from "../../src/load/load-task.ts";
import { createControl } from "../../src/shared/control.ts";
import { runInThread, terminateIdleThreads } from "../../src/threads/pool.ts";
import { HUGE_PAGE_SIZE, PAGE_SIZE } from "../../src/units.ts";

const UNITS = 2048;

let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "pgalloc-background-"));
});
afterAll(async () => {
  rmSync(directory, { recursive: true, force: true });
  await terminateIdleThreads();
});

test("a spare thread reads nothing more while pages are wanted, and the rest afterwards", async () => {
  // A page in each unit: all together they take a twentieth of a second.
  const state = LoadState.create({
    sizePages: UNITS * PAGES_PER_UNIT,
    extentStart: Uint32Array.from({ length: UNITS }, (_, unit) => unit * PAGES_PER_UNIT),
    extentLength: new Uint32Array(UNITS).fill(1),
    extentOffset: 0,
    checksums: null,
  });
  const { words } = state;
  const total = words[LoadWord.PendingPages]!;
  const fd = openFile(join(directory, "pages"), O_RDWR | O_CREAT, 0o600);
  truncateFile(fd, UNITS * PAGE_SIZE);
  const base = mapAnonymous(UNITS * HUGE_PAGE_SIZE);
  const shared = { control: createControl().buffer, state: state.handle, base, fd, directFd: -1 };
  const task: LoadTask = { ...shared, role: "spare", queue: "inline" };
  try {
    const { done } = runInThread("load", task, { lowPriority: true });
    const wantFor = async (isEnough: () => boolean) => {
      while (!isEnough()) {
        state.wakeDemand();
        await new Promise((resolve) => setImmediate(resolve));
      }
    };
    await wantFor(() => words[LoadWord.LoadedPages]! > 0);
    const until = performance.now() + 500;
    await wantFor(() => performance.now() > until);
    expect(words[LoadWord.LoadedPages]).toBeLessThan(total);
    await done;
    expect(words[LoadWord.LoadedPages]).toBe(total);
  } finally {
    unmap(base, UNITS * HUGE_PAGE_SIZE);
    closeFile(fd);
  }
});

test("background threads have low priority; who waits, reads on demand or saves has the program's own", async () => {
  // In a process of its own: a thread's priority stays low.
  const program = `
    import { readdirSync, readFileSync } from "node:fs";
    import { MemoryFile } from "${import.meta.dir}/../../src/index.ts";
    const source = MemoryFile.create();
    source.view(source.allocate(2 ** 25)).fill(1);
    await source.saveTo(process.argv[1]);
    source.destroy();
    const file = await MemoryFile.loadFrom(process.argv[1], { queue: "workers" });
    await file.saveTo(process.argv[1]);
    const stats = readdirSync("/proc/self/task").map((thread) => readFileSync("/proc/self/task/" + thread + "/stat", "utf8"));
    const main = stats.filter((stat) => stat.startsWith(process.pid + " "));
    const nice = [...main, ...stats.filter((stat) => stat.includes("(Worker)"))].map((stat) =>
      Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[16]));
    console.log(JSON.stringify(nice));
    process.exit(0);`;
  const child = Bun.spawn([process.execPath, "-e", program, join(directory, "checkpoint")], { stderr: "inherit" });
  const nice = JSON.parse(await new Response(child.stdout).text()) as number[];
  const own = niceOf();
  const low = Math.max(own, 10);
  expect(nice[0]).toBe(own);
  const lowered = nice.slice(1).filter((value) => value === low).length;
  const others = nice.slice(1).filter((value) => value === own).length;
  expect(lowered + others).toBe(nice.length - 1);
  expect(lowered).toBe(Math.min(4, Math.max(2, availableParallelism())));
  // The demand thread, and those that save.
  expect(others).toBeGreaterThanOrEqual(2);
});
