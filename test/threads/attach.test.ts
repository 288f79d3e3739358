/**
 * share() and attach(): one file in several Workers, whatever a Worker does with it, and bad
 * handles.
 */
import { afterEach, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  CHUNK_SIZE,
  DestroyedError,
  FileRange,
  MemoryFile,
  PAGE_SIZE,
  TooManyThreadsError,
} from "../../src/index.ts";
import {
  Field,
  MAX_PARTICIPANTS,
  openControl,
  ParticipantWord,
} from "../../src/control/control.ts";
import { slotWord } from "../../src/control/participants.ts";
import { setInterleavingHook } from "../../src/control/interleave.ts";
import { THREAD_ID } from "../../src/threads/thread.ts";
import { Actor, failureOf } from "./support/actor.ts";

const actors: Actor[] = [];
const directories: string[] = [];

function start(count: number): Actor[] {
  const started = Array.from({ length: count }, () => new Actor());
  actors.push(...started);
  return started;
}

function directory(): string {
  const made = mkdtempSync(join(tmpdir(), "pgalloc-attach-"));
  directories.push(made);
  return made;
}

afterEach(async () => {
  await Promise.all(actors.splice(0).map((actor) => actor.terminate()));
  for (const made of directories.splice(0)) rmSync(made, { recursive: true, force: true });
});

test("every thread sees contents, references, sizes and releases of the others", async () => {
  using file = MemoryFile.create({ name: "seen" });
  const [a, b] = start(2) as [Actor, Actor];
  await a.call("attach", file.share());
  await b.call("attach", file.share());
  const range = await a.call("allocate", 8 * PAGE_SIZE);
  await a.call("fill", range, 7);
  expect(await b.call("read", range, 8 * PAGE_SIZE - 1)).toBe(7);
  expect(file.view(range)[0]).toBe(7);
  file.view(range)[0] = 9;
  expect(await b.call("read", range, 0)).toBe(9);
  await b.call("incRef", range);
  expect(file.firstSharedRange(range)).toEqual(new FileRange(range.start, range.end));
  await a.call("decRef", range);
  expect(file.hasUniqueRef(range)).toBe(true);
  expect(await a.call("sizes")).toEqual({
    totalSizeBytes: CHUNK_SIZE,
    allocatedBytes: 8 * PAGE_SIZE,
    totalUsageBytes: 8 * PAGE_SIZE,
  });
  await a.call("decommit", range);
  expect(file.view(range)[0]).toBe(0);
  await b.call("decRef", range);
  expect((await failureOf(b.call("decRef", range))).message).toContain("to have a reference");
  // Viewed before, and dropped by another thread since.
  expect(() => file.view(range)).toThrow("to have a reference");
  expect((await failureOf(a.call("read", range, 0))).message).toContain("to have a reference");
  await a.call("released");
  expect(file.totalUsageBytes).toBe(0);
  expect(file.dump()).toBe(`[0, ${CHUNK_SIZE}) free`);
  expect(await b.call("text")).toBe(file.dump());
});

test("view in a busy thread sees dropped ranges and destroy of other threads", async () => {
  using file = MemoryFile.create();
  const [worker] = start(1) as [Actor];
  await worker.call("attach", file.share());
  const [dropped, kept] = [file.allocate(PAGE_SIZE), file.allocate(PAGE_SIZE)];
  const drop = failureOf(worker.call("viewForEver", dropped));
  await Bun.sleep(50);
  file.decRef(dropped);
  expect((await drop).message).toContain("to have a reference");
  const end = failureOf(worker.call("viewForEver", kept));
  await Bun.sleep(50);
  file.destroy();
  expect(await end).toMatchObject({ name: "DestroyedError" });
});

test("view checks a range again only after pages are discarded", async () => {
  using file = MemoryFile.create();
  const [range, other] = [file.allocate(PAGE_SIZE), file.allocate(PAGE_SIZE)];
  file.share();
  let locks = 0;
  setInterleavingHook((point) => {
    if (point === "lock: taken") locks++;
  });
  try {
    for (const type of [Uint8Array, Float32Array]) {
      const view = file.view<ArrayBufferView>(range, type);
      locks = 0;
      expect(file.view<ArrayBufferView>(range, type)).toBe(view);
      expect(locks).toBe(0);
    }
    file.decRef(other);
    locks = 0;
    for (let i = 0; i < 3; i++) file.view(range, Float32Array);
    expect(locks).toBe(1);
  } finally {
    setInterleavingHook(undefined);
  }
});

test("a thread that returns to a run sees the changes of other threads", async () => {
  using file = MemoryFile.create();
  const [worker] = start(1) as [Actor];
  await worker.call("attach", file.share());
  const { start: first } = file.allocate(64 * PAGE_SIZE);
  const pages = (from: number, to: number) => ({
    start: first + from * PAGE_SIZE,
    end: first + to * PAGE_SIZE,
  });
  const refsOf = () => file.dump().match(/refs=\d+/g);
  file.incRef(pages(10, 12));
  file.decRef(pages(10, 12));
  await worker.call("incRef", pages(20, 24));
  file.incRef(pages(0, 64));
  expect(refsOf()).toEqual(["refs=2", "refs=3", "refs=2"]);
  file.incRef(pages(40, 41));
  await worker.call("decRef", pages(30, 50));
  file.decRef(pages(40, 41));
  expect(refsOf()).toEqual(["refs=2", "refs=3", "refs=2", "refs=1", "refs=2"]);
});

test("allocate grows the file in any thread while others use it", async () => {
  using file = MemoryFile.create();
  const workers = start(3);
  for (const worker of workers) await worker.call("attach", file.share());
  const first = file.allocate(PAGE_SIZE);
  const ranges = [{ start: first.start, end: first.end }];
  for (let round = 0; round < 6; round++) {
    ranges.push(await workers[round % 3]!.call("allocate", CHUNK_SIZE - PAGE_SIZE));
    const last = ranges.at(-1)!;
    await workers[(round + 1) % 3]!.call(
      "fill",
      { start: last.end - PAGE_SIZE, end: last.end },
      round + 1,
    );
    expect(file.view({ start: last.end - PAGE_SIZE, end: last.end })[5]).toBe(round + 1);
  }
  const sorted = ranges.toSorted((x, y) => x.start - y.start);
  for (let i = 1; i < sorted.length; i++)
    expect(sorted[i]!.start).toBeGreaterThanOrEqual(sorted[i - 1]!.end);
  expect(file.totalSizeBytes).toBeGreaterThanOrEqual(6 * CHUNK_SIZE);
});

test("attach gives a restore and its userData to every thread", async () => {
  const checkpoint = directory();
  const source = MemoryFile.create();
  const range = source.allocate(2 ** 26);
  const words = source.view(range, Uint32Array);
  for (let page = 0; page < 2 ** 26 / PAGE_SIZE; page++)
    words.fill(page + 1, (page * PAGE_SIZE) / 4, ((page + 1) * PAGE_SIZE) / 4);
  await source.saveTo(checkpoint, { userData: new Uint8Array([1, 2, 3]) });
  source.destroy();
  using file = await MemoryFile.loadFrom(checkpoint, { background: true });
  const [a, b, c] = start(3) as [Actor, Actor, Actor];
  const handle = file.share();
  const attached = await Promise.all([a, b, c].map((actor) => actor.call("attach", handle)));
  for (const { userData } of attached) expect(userData).toEqual(new Uint8Array([1, 2, 3]));
  const page = (index: number) => ({
    start: range.start + index * PAGE_SIZE,
    end: range.start + (index + 1) * PAGE_SIZE,
  });
  await Promise.all([
    a.call("awaitLoad", page(9000)),
    b.call("awaitLoadSync", page(12_000)),
    c.call("awaitLoadSync"),
    file.awaitLoad(page(15_000)),
  ]);
  expect(await a.call("read", page(9000), 0)).toBe(9001 & 255);
  expect(await b.call("read", page(12_000), 1)).toBe(12_001 >> 8);
  expect(await c.call("read", page(16_383), 1)).toBe(16_384 >> 8);
  await a.call("awaitLoad");
  expect(await a.call("isLoaded", range)).toBe(true);
  expect(await b.call("isLoading")).toBe(false);
  expect((await b.call("loadStats")).loadedBytes).toBe(2 ** 26);
  expect(await b.call("save", checkpoint)).toBe(2 ** 26);
});

test("loadFrom in a Worker loads for the main thread, too", async () => {
  const checkpoint = directory();
  const source = MemoryFile.create();
  const range = source.allocate(2 ** 24);
  source.view(range).fill(5);
  await source.saveTo(checkpoint);
  source.destroy();
  const [worker] = start(1) as [Actor];
  using file = MemoryFile.attach(await worker.call("loadFrom", checkpoint));
  await file.awaitLoad(range);
  expect(file.view(range)[2 ** 24 - 1]).toBe(5);
});

test("attach in the same thread again, or in the file's own, is the same participant", async () => {
  const file = MemoryFile.create();
  const again = MemoryFile.attach(structuredClone(file.share()));
  const range = again.allocate(PAGE_SIZE);
  expect(again.view(range)).toBe(file.view(range));
  for (let i = 0; i < 1000; i++) MemoryFile.attach(file.share());
  const [worker] = start(1) as [Actor];
  for (let i = 0; i < 3; i++) await worker.call("attach", file.share());
  const { words } = openControl(file.share().control);
  const taken = Array.from(
    { length: MAX_PARTICIPANTS },
    (_, slot) => words[slotWord(slot) + ParticipantWord.Thread] !== 0,
  );
  expect(taken.filter(Boolean).length).toBe(2);
  again.destroy();
  expect(() => file.view(range)).toThrow(DestroyedError);
});

test("destroy makes a handle throw DestroyedError, in every thread and at any time", async () => {
  const file = MemoryFile.create();
  const handle = file.share();
  const [worker] = start(1) as [Actor];
  file.destroy();
  // Another file is probably where the first one was.
  using other = MemoryFile.create();
  expect(await failureOf(worker.call("attach", handle))).toMatchObject({
    name: "DestroyedError",
    code: "ERR_DESTROYED",
  });
  expect(() => MemoryFile.attach(handle)).toThrow(DestroyedError);
  expect(other.allocatedBytes).toBe(0);
});

test("attach refuses a foreign handle, and touches no address in it", () => {
  using file = MemoryFile.create();
  const good = file.share();
  const forged = (change: (fields: Float64Array, words: Int32Array) => void) => {
    const control = new SharedArrayBuffer(good.control.byteLength);
    new Uint8Array(control).set(new Uint8Array(good.control));
    const { fields, words } = openControl(control);
    fields[Field.FileId] = 1;
    change(fields, words);
    return { ...good, control };
  };
  const handles: unknown[] = [
    null,
    undefined,
    7,
    {},
    { ...good, kind: "other" },
    { ...good, name: 5 },
    { ...good, control: null },
    { ...good, control: new ArrayBuffer(good.control.byteLength) },
    { ...good, control: new SharedArrayBuffer(good.control.byteLength) },
    { ...good, control: new SharedArrayBuffer(64) },
    forged((fields) => {
      fields[Field.BaseAddress] = 4096;
    }),
    forged((fields) => {
      fields[Field.BaseAddress] = Number.NaN;
    }),
    forged((fields) => {
      fields[Field.TableAddress] = 2 ** 46;
    }),
    forged((fields) => {
      fields[Field.CapacityPages] = 2 ** 50;
    }),
    forged((fields) => {
      fields[Field.Fd] = 0;
    }),
    forged((fields) => {
      fields[Field.Fd] = 1_000_000;
    }),
    forged((fields) => {
      fields[Field.ProcessId] = process.pid + 1;
    }),
    forged((fields) => {
      fields[Field.Magic] = 0;
    }),
  ];
  for (const handle of handles) expect(() => MemoryFile.attach(handle as never)).toThrow(TypeError);
  const { load, ...rest } = forged(() => {});
  expect(load).toBeNull();
  for (const bad of [
    {},
    { state: {}, fd: 1, path: "p" },
    { state: { tables: 1, columns: 2 }, fd: 1, path: "p" },
  ]) {
    expect(() => MemoryFile.attach({ ...rest, load: bad as never })).toThrow(TypeError);
  }
});

test("attach refuses a handle that went through bytes, with a TypeError", () => {
  using file = MemoryFile.create();
  const copied = JSON.parse(JSON.stringify(file.share())) as never;
  expect(() => MemoryFile.attach(copied)).toThrow(TypeError);
});

test("attach refuses the 193rd thread, and reuses the slots of dead ones", async () => {
  using file = MemoryFile.create();
  const [worker, dead] = start(2) as [Actor, Actor];
  await dead.call("attach", file.share());
  const deadThread = await dead.call("threadId");
  const { words } = openControl(file.share().control);
  for (let slot = 0; slot < MAX_PARTICIPANTS; slot++) {
    const at = slotWord(slot) + ParticipantWord.Thread;
    if (words[at] === 0) words[at] = THREAD_ID;
  }
  expect(await failureOf(worker.call("attach", file.share()))).toMatchObject({
    name: new TooManyThreadsError(1).name,
    code: "ERR_TOO_MANY_THREADS",
    message: expect.stringContaining("192"),
  });
  await dead.terminate();
  await worker.call("attach", file.share());
  expect(words.includes(deadThread)).toBe(false);
  for (let slot = 1; slot < MAX_PARTICIPANTS; slot++) {
    const at = slotWord(slot) + ParticipantWord.Thread;
    if (words[at] === THREAD_ID) words[at] = 0;
  }
});
