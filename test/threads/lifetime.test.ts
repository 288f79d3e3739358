/**
 * The end of a file that several threads use, and what a dead thread leaves behind. Real Workers,
 * real terminate().
 */
import { afterEach, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FileFailedError, type FileRange, MemoryFile, PAGE_SIZE } from "../../src/index.ts";
import { PAGES_PER_UNIT } from "../../src/load/load-tables.ts";
import { coreOf } from "../../src/file/memory-file.ts";
import { Word } from "../../src/control/control.ts";
import type { Point } from "../../src/control/interleave.ts";
import { Actor, failureOf } from "./support/actor.ts";
import { heldLoad } from "./support/held-load.ts";

const actors: Actor[] = [];
const directories: string[] = [];

async function attached(file: MemoryFile): Promise<Actor> {
  const actor = new Actor();
  actors.push(actor);
  await actor.call("attach", file.share());
  return actor;
}

function directory(): string {
  const made = mkdtempSync(join(tmpdir(), "pgalloc-threads-"));
  directories.push(made);
  return made;
}

afterEach(async () => {
  await Promise.all(actors.splice(0).map((actor) => actor.terminate()));
  for (const made of directories.splice(0)) rmSync(made, { recursive: true, force: true });
});

function isMapped(name: string): boolean {
  return readFileSync("/proc/self/maps", "utf8").includes(`memfd:${name}`);
}

function isAsleep(thread: number): boolean {
  const stat = readFileSync(`/proc/self/task/${thread & 0x3fffff}/stat`, "utf8");
  return stat.slice(stat.lastIndexOf(")") + 2).startsWith("S");
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await Bun.sleep(2);
}

test("destroy ends the views of other threads at their next turn, then the memory", async () => {
  for (const destroyer of ["main", "worker"]) {
    const name = `turn-${destroyer}`;
    const file = MemoryFile.create({ name });
    const range = file.allocate(4 * PAGE_SIZE);
    const view = file.view(range);
    const [a, b] = [await attached(file), await attached(file)];
    await a.call("keepView", range);
    await b.call("keepView", range);
    if (destroyer === "main") file.destroy();
    else await a.call("destroy");
    await until(() => !isMapped(name));
    expect(view.length).toBe(0);
    expect(await a.call("keptLengths")).toEqual([0]);
    expect(await b.call("keptLengths")).toEqual([0]);
    expect(await failureOf(b.call("read", range, 0))).toMatchObject({ code: "ERR_DESTROYED" });
  }
});

test("a busy thread keeps destroyed memory mapped until its next call", async () => {
  const file = MemoryFile.create({ name: "next-call" });
  const [range, other] = [file.allocate(PAGE_SIZE), file.allocate(PAGE_SIZE)];
  const worker = await attached(file);
  await worker.call("keepView", range);
  const busy = await worker.stopAt("lock: taken");
  const call = worker.call("read", other, 0);
  await busy.reached();
  file.destroy();
  await Bun.sleep(60);
  expect(isMapped("next-call")).toBe(true);
  busy.open();
  // The call had begun on a live file, so it succeeds.
  expect(await call).toBe(0);
  await until(() => !isMapped("next-call"));
  expect(await worker.call("keptLengths")).toEqual([0]);
});

test("a thread that does not respond delays the unmapping, which is reported once", async () => {
  const warnings: (Error & { code?: string })[] = [];
  const onWarning = (warning: Error) => warnings.push(warning);
  process.on("warning", onWarning);
  const file = MemoryFile.create({ name: "never-answers" });
  const range = file.allocate(PAGE_SIZE);
  const worker = await attached(file);
  const silent = await worker.stopAt("lock: taken");
  const call = worker.call("read", range, 0);
  await silent.reached();
  file.destroy();
  await until(() => warnings.length > 0);
  expect(warnings.map(({ code }) => code)).toEqual(["PGALLOC_THREAD_DELAYS_UNMAP"]);
  expect(warnings[0]!.message).toContain('MemoryFile "never-answers"');
  expect(isMapped("never-answers")).toBe(true);
  silent.open();
  await call;
  await until(() => !isMapped("never-answers"));
  process.off("warning", onWarning);
});

test("a terminated thread has left: its memory is unmapped and stays untouched", async () => {
  const file = MemoryFile.create({ name: "gone" });
  const range = file.allocate(256 * PAGE_SIZE);
  const workers = await Promise.all(Array.from({ length: 4 }, () => attached(file)));
  for (const worker of workers) {
    await worker.call("fill", range, 3);
    for (let i = 0; i < 50; i++)
      await worker.call("keepView", { start: i * PAGE_SIZE, end: (i + 1) * PAGE_SIZE });
  }
  await Promise.all(workers.map((worker) => worker.terminate()));
  Bun.gc(true);
  expect(file.view(range).every((byte) => byte === 3)).toBe(true);
  file.destroy();
  expect(isMapped("gone")).toBe(false);
});

/** Pages of the file that are neither free nor in `ranges`. */
function strayLines(file: MemoryFile): string[] {
  return file
    .dump()
    .split("\n")
    .filter((line) => !line.endsWith(" free"));
}

test("a thread that dies with the lock leaves tables that the next one repairs", async () => {
  const deaths: [Point, (actor: Actor, range: FileRange) => Promise<unknown>][] = [
    ["lock: taken", (actor) => actor.call("allocate", 3 * PAGE_SIZE)],
    ["lock: taken", (actor, range) => actor.call("decRef", range)],
    ["grow: chunks mapped", (actor) => actor.call("allocate", 2 ** 31)],
  ];
  for (const [point, act] of deaths) {
    using file = MemoryFile.create();
    const kept = file.allocate(5 * PAGE_SIZE);
    const range = file.allocate(4 * PAGE_SIZE);
    file.view(kept).fill(8);
    const worker = await attached(file);
    const other = await attached(file);
    const gate = await worker.stopAt(point);
    void act(worker, range);
    await gate.reached();
    const waiting = other.call("allocate", 2 * PAGE_SIZE);
    await worker.terminate();
    const fresh = await waiting;
    expect(fresh.start >= range.end).toBe(true);
    expect(file.view(kept).every((byte) => byte === 8)).toBe(true);
    file.decRef(kept);
    file.decRef(range);
    file.decRef(fresh);
    await file.released();
    expect(strayLines(file)).toEqual([]);
    expect(file.allocatedBytes).toBe(0);
    const whole = file.allocate(file.totalSizeBytes);
    expect(whole.start).toBe(0);
  }
});

test("a dead thread's releasing pages are released by another thread", async () => {
  for (const huge of [false, true]) {
    using file = MemoryFile.create({ expectHugepages: true });
    const range = file.allocate(2 ** 22, { huge });
    file.view(range).fill(1);
    const worker = await attached(file);
    const gate = await worker.stopAt("release: began");
    await worker.call("decRef", range);
    await gate.reached();
    expect(file.dump()).toContain("releasing");
    await worker.terminate();
    await file.released();
    expect(strayLines(file)).toEqual([]);
    expect(file.totalUsageBytes).toBe(0);
  }
});

test("a dead releaser is succeeded without a request", async () => {
  using file = MemoryFile.create();
  const worker = await attached(file);
  const range = file.allocate(PAGE_SIZE);
  const gate = await worker.stopAt("release: began");
  await worker.call("decRef", range);
  await gate.reached();
  await worker.terminate();
  for (let i = 0; i < 200; i++) file.decRef(file.allocate(PAGE_SIZE));
  await until(() => coreOf(file).words[Word.WastePages] === 0);
  expect(strayLines(file)).toEqual([]);
});

test("tables that cannot be repaired make every call fail, except destroy", async () => {
  const file = MemoryFile.create({ name: "beyond-repair" });
  const range = file.allocate(PAGE_SIZE);
  file.view(range);
  const [worker, other] = [await attached(file), await attached(file)];
  const gate = await worker.stopAt("lock: taken");
  void worker.call("decRef", range);
  await gate.reached();
  coreOf(file).allocator.set.tables.bits.fill(0);
  await worker.terminate();
  expect(() => file.allocate(PAGE_SIZE)).toThrow(FileFailedError);
  expect(() => file.decRef(range)).toThrow("restore it from its checkpoint");
  expect(() => file.view(range)).toThrow(FileFailedError);
  expect(await failureOf(other.call("allocate", PAGE_SIZE))).toMatchObject({
    code: "ERR_FILE_FAILED",
  });
  file.destroy();
  await until(() => !isMapped("beyond-repair"));
});

test("a thread that dies with a claim leaves its pages to those who wait for them", async () => {
  const load = await heldLoad();
  const { file, page } = load;
  const worker = await attached(file);
  const other = await attached(file);
  load.giveBack();
  const gate = await worker.stopAt("load: claimed");
  void worker.call("awaitLoadSync", page);
  await gate.reached();
  const waits = [file.awaitLoad(page), other.call("awaitLoadSync", page)];
  await worker.terminate();
  await Promise.all(waits);
  expect(file.view(page).every((byte) => byte === 9)).toBe(true);
  load.finish();
  await file.awaitLoad();
  load.end();
});

test("a thread that dies while it returns a dead thread's claim leaves both", async () => {
  const load = await heldLoad();
  const [reader, heir] = [await attached(load.file), await attached(load.file)];
  load.giveBack();
  const claim = await reader.stopAt("load: claimed");
  void reader.call("awaitLoadSync", load.page);
  await claim.reached();
  const recovering = await heir.stopAt("recover: took the slot");
  void heir.call("awaitLoadSync", load.page);
  reader.worker.terminate();
  // Without a turn of the event loop, because this thread's own load would be first.
  while (recovering.count === 0) Bun.sleepSync(5);
  await heir.terminate();
  await load.file.awaitLoad(load.page);
  expect(load.file.view(load.page).every((byte) => byte === 9)).toBe(true);
  load.finish();
  load.end();
});

test("a thread that dies asleep in a wait does not harm others", async () => {
  const load = await heldLoad();
  const waiter = await attached(load.file);
  const asleep = await waiter.stopAt("wait: looked at the bits");
  void waiter.call("awaitLoadSync", load.page);
  await asleep.reached();
  asleep.open();
  await Bun.sleep(10);
  const other = (await attached(load.file)).call("awaitLoadSync", load.page);
  await waiter.terminate();
  load.publish();
  await other;
  await load.file.awaitLoad(load.page);
  load.finish();
  load.end();
});

test("a load whose running thread dies continues in a waiting thread", async () => {
  const checkpoint = directory();
  const source = MemoryFile.create();
  const range = source.allocate(2 ** 26);
  source.view(range).fill(6);
  await source.saveTo(checkpoint);
  source.destroy();
  const owner = new Actor();
  actors.push(owner);
  const file = MemoryFile.attach(await owner.call("loadFrom", checkpoint));
  await owner.terminate();
  await file.awaitLoad();
  expect(file.view(range).every((byte) => byte === 6)).toBe(true);
  file.destroy();
});

test("terminate() during a native call keeps memory mapped until the call returns", async () => {
  const load = await heldLoad({ name: "blocked" });
  const fifo = join(directory(), "fifo");
  Bun.spawnSync(["mkfifo", fifo]);
  const worker = await attached(load.file);
  const thread = await worker.call("threadId");
  load.giveBack();
  const gate = await worker.stopAt("load: claimed", fifo);
  void worker.call("awaitLoadSync", load.page);
  await gate.reached();
  // The point comes before the call, so wait until the kernel reports that the thread sleeps in it.
  while (!isAsleep(thread)) await Bun.sleep(20);
  worker.worker.terminate();
  load.finish();
  load.end();
  await Bun.sleep(100);
  expect(isMapped("blocked")).toBe(true);
  writeFileSync(fifo, "");
  await worker.closed;
  await until(() => !isMapped("blocked"));
});

test("an attached Worker with nothing to do exits by itself, and so does the process", async () => {
  const made = directory();
  const index = join(import.meta.dir, "../../src/index.ts");
  await Bun.write(
    join(made, "worker.ts"),
    `import { MemoryFile } from "${index}";
     self.onmessage = ({ data }) => {
       const file = MemoryFile.attach(data);
       file.view(file.allocate(4096))[0] = 1;
       self.onmessage = null;
     };`,
  );
  await Bun.write(
    join(made, "main.ts"),
    `import { MemoryFile } from "${index}";
     const file = MemoryFile.create();
     const worker = new Worker(new URL("./worker.ts", import.meta.url));
     worker.addEventListener("close", () => { console.log("closed", file.allocatedBytes); });
     worker.postMessage(file.share());`,
  );
  const run = Bun.spawn([process.execPath, join(made, "main.ts")], {
    stdout: "pipe",
    stderr: "pipe",
    timeout: 20_000,
  });
  const output = (await new Response(run.stdout).text()) + (await new Response(run.stderr).text());
  expect(`${await run.exited} ${output}`).toBe("0 closed 4096\n");
});

test("files loaded inline and destroyed are unmapped without a later turn", async () => {
  const source = MemoryFile.create();
  source.view(source.allocate(PAGE_SIZE)).fill(1);
  const path = join(directory(), "checkpoint");
  await source.saveTo(path);
  source.destroy();
  const mapped = () => readFileSync("/proc/self/maps", "utf8").split("memfd:in-line").length - 1;
  for (let i = 0; i < 60; i++) {
    const file = await MemoryFile.loadFrom(path, {
      name: "in-line",
      background: true,
      queue: "inline",
    });
    await file.awaitLoad();
    file.destroy();
  }
  // A slow thread may have needed a turn.
  expect(mapped()).toBeLessThan(30);
  await until(() => mapped() === 0);
});

test("a load ends although a thread died between bits and count", async () => {
  for (const queue of ["inline", "workers"] as const) {
    const { file, page, giveBack, finish, end } = await heldLoad({ queue });
    const worker = await attached(file);
    giveBack();
    const gate = await worker.stopAt("load: bits set");
    void worker.call("awaitLoadSync", {
      start: page.start,
      end: page.start + PAGES_PER_UNIT * PAGE_SIZE,
    });
    await gate.reached();
    await worker.terminate();
    finish();
    file.awaitLoadSync();
    await file.awaitLoad();
    await until(() => !file.isLoading);
    await until(() => coreOf(file).loader!.isFinished);
    expect(coreOf(file).words[Word.Loading]).toBe(0);
    expect(file.view(page)[0]).toBe(9);
    end();
  }
});

test("a load ends although a dying thread dropped pages", async () => {
  const load = await heldLoad();
  const worker = await attached(load.file);
  load.giveBack();
  const gate = await worker.stopAt("drop: claimed");
  void worker.call("decommit", load.page);
  await gate.reached();
  await worker.terminate();
  load.finish();
  await load.file.awaitLoad();
  expect(load.file.view(load.page)[0]).toBe(9);
  await until(() => !load.file.isLoading);
  load.end();
});
