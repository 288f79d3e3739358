/**
 * destroy(): views end, memory is unmapped when nothing uses it, nothing leaks, and the process
 * exits when it should.
 */
import { expect, test } from "bun:test";
import {
  closeSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  read,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DestroyedError, FileRange, MemoryFile, PAGE_SIZE } from "../../src/index.ts";
import { terminateIdleThreads } from "../../src/threads/idle.ts";
import { threadCount } from "../../src/threads/pool.ts";

function mappings(name: string): number {
  return readFileSync("/proc/self/maps", "utf8")
    .split("\n")
    .filter((line) => line.includes(`memfd:${name}`)).length;
}

test("destroy leaves every view with length 0, safe to touch", () => {
  const file = MemoryFile.create({ name: "views-end" });
  const range = file.allocate(16 * PAGE_SIZE);
  const bytes = file.view(range);
  const floats = file.view(range, Float64Array);
  const parts = Array.from({ length: 16 }, (_, i) =>
    file.view(new FileRange(i * PAGE_SIZE, (i + 1) * PAGE_SIZE)),
  );
  const sub = bytes.subarray(100, 200);
  expect(mappings("views-end")).toBe(1);
  file.destroy();
  file.destroy();
  for (const view of [bytes, floats, sub, ...parts]) expect(view.length).toBe(0);
  expect(bytes[0]).toBeUndefined();
  expect(() => bytes.set([1])).toThrow();
  expect(mappings("views-end")).toBe(0);
});

test("destroy makes every method throw DestroyedError", async () => {
  const file = MemoryFile.create();
  const range = file.allocate(PAGE_SIZE);
  file.destroy();
  const calls: (() => unknown)[] = [
    () => file.allocate(PAGE_SIZE),
    () => file.incRef(range),
    () => file.decRef(range),
    () => file.hasUniqueRef(range),
    () => file.firstSharedRange(range),
    () => file.decommit(range),
    () => file.view(range),
    () => file.views(range),
    () => file.totalUsageBytes,
    () => file.totalSizeBytes,
    () => file.allocatedBytes,
    () => file.isLoading,
    () => file.isLoaded(range),
    () => file.loadStats(),
    () => file.awaitLoadSync(range),
    () => file.share(),
    () => file.dump(),
  ];
  for (const call of calls) expect(call).toThrow(DestroyedError);
  for (const call of [
    () => file.released(),
    () => file.awaitLoad(range),
    () => file.saveTo("/nonexistent"),
  ]) {
    expect(call()).rejects.toThrow(DestroyedError);
  }
});

test("destroy delays the unmapping for a buffer that I/O has pinned", async () => {
  const directory = mkdtempSync(join(tmpdir(), "pgalloc-pinned-"));
  const fifo = join(directory, "fifo");
  Bun.spawnSync(["mkfifo", fifo]);
  const fd = openSync(fifo, "r+");
  const file = MemoryFile.create({ name: "pinned" });
  const view = file.view(file.allocate(PAGE_SIZE));
  const done = new Promise<number>((resolve, reject) =>
    read(fd, view, 0, 5, null, (error, count) => (error ? reject(error) : resolve(count))),
  );
  await Bun.sleep(20); // the read is blocked in another thread now
  file.destroy();
  expect(mappings("pinned")).toBe(1);
  writeFileSync(fifo, "hello");
  expect(await done).toBe(5);
  for (let i = 0; i < 200 && mappings("pinned") > 0; i++) await Bun.sleep(5);
  expect(mappings("pinned")).toBe(0);
  expect(view.length).toBe(0);
  closeSync(fd);
  rmSync(directory, { recursive: true });
});

test("structuredClone of a view copies its range, not a chunk", () => {
  using file = MemoryFile.create();
  const view = file.view(file.allocate(PAGE_SIZE));
  view[0] = 42;
  expect(view.buffer.byteLength).toBe(PAGE_SIZE);
  const copy = structuredClone(view);
  expect([copy[0], copy.buffer.byteLength]).toEqual([42, PAGE_SIZE]);
});

test("view makes a new view after its buffer was transferred away", () => {
  using file = MemoryFile.create();
  const range = file.allocate(PAGE_SIZE);
  file.view(range)[0] = 9;
  file.view(range).buffer.transfer(0);
  expect(file.view(range)[0]).toBe(9);
});

test("create, allocate, save, load and destroy leave nothing behind, 1,000 times", async () => {
  const directory = mkdtempSync(join(tmpdir(), "pgalloc-rounds-"));
  const count = () => ({
    fds: readdirSync("/proc/self/fd").length,
    maps: readFileSync("/proc/self/maps", "utf8").split("\n").length,
    threads: readdirSync("/proc/self/task").length,
    rssBytes: process.memoryUsage.rss(),
  });
  /** Waits until all work has ended. Pool threads have descriptors of their own. */
  const rest = async () => {
    while (threadCount().busy > 0) await Bun.sleep(5);
    await terminateIdleThreads();
    await Bun.sleep(50);
    Bun.gc(true);
  };
  const round = async (i: number) => {
    const file = MemoryFile.create({ name: "round" });
    const range = file.allocate(8 * PAGE_SIZE);
    file.view(range, Uint32Array).fill(i);
    await file.saveTo(directory);
    file.destroy();
    const back = await MemoryFile.loadFrom(directory, { background: i % 2 === 0 });
    await back.awaitLoad(range);
    expect(back.view(range, Uint32Array)[1]).toBe(i);
    back.destroy();
  };
  for (let i = 0; i < 30; i++) await round(i);
  await rest();
  const before = count();
  const rounds = process.env["CI"] === undefined ? 200 : 1000;
  for (let i = 0; i < rounds; i++) await round(i);
  await rest();
  const after = count();
  expect(after.fds).toBeLessThanOrEqual(before.fds);
  // The runtime starts compiler and collector threads at any time. A leak would be one for each
  // round.
  expect(after.threads).toBeLessThanOrEqual(before.threads + 8);
  expect(after.maps).toBeLessThanOrEqual(before.maps + 40);
  expect(after.rssBytes).toBeLessThanOrEqual(before.rssBytes + 96 * 2 ** 20);
  expect(mappings("round")).toBe(0);
  rmSync(directory, { recursive: true });
}, 120_000);

async function runProgram(source: string): Promise<{ exitCode: number; output: string }> {
  const directory = mkdtempSync(join(tmpdir(), "pgalloc-program-"));
  const path = join(directory, "program.ts");
  await Bun.write(
    path,
    source
      .replaceAll("pgalloc", join(import.meta.dir, "../../src/index.ts"))
      .replaceAll("DIRECTORY", directory),
  );
  const run = Bun.spawn([process.execPath, path], { stdout: "pipe", stderr: "pipe" });
  const timer = setTimeout(() => run.kill("SIGKILL"), 20_000);
  const output = (await new Response(run.stdout).text()) + (await new Response(run.stderr).text());
  const exitCode = await run.exited;
  clearTimeout(timer);
  rmSync(directory, { recursive: true });
  return { exitCode, output };
}

test("the process exits by itself with a file open and a load under way", async () => {
  const { exitCode, output } = await runProgram(`
    import { MemoryFile } from "pgalloc";
    const file = MemoryFile.create();
    const range = file.allocate(2 ** 26);
    file.view(range).fill(1);
    await file.saveTo("DIRECTORY/checkpoint");
    const back = await MemoryFile.loadFrom("DIRECTORY/checkpoint", { background: true });
    console.log("end", back.isLoading);
  `);
  expect(`${exitCode} ${output}`).toBe("0 end true\n");
});

test("the process stays alive while a load, a save or a release is awaited", async () => {
  const { exitCode, output } = await runProgram(`
    import { MemoryFile } from "pgalloc";
    const file = MemoryFile.create();
    const range = file.allocate(2 ** 26);
    file.view(range).fill(1);
    void file.saveTo("DIRECTORY/checkpoint").then(async () => {
      const back = await MemoryFile.loadFrom("DIRECTORY/checkpoint", { background: true });
      void back.awaitLoad().then(() => {
        back.decRef(range);
        void back.released().then(() => console.log("released", back.totalUsageBytes));
      });
    });
  `);
  expect(`${exitCode} ${output}`).toBe("0 released 0\n");
});
